/* Comparisons of rows: merges of weighted rows, and the ascent over skew multipliers. Twins in rows.py and ascent.py. */
#include <stddef.h>

double gfviz_assign_from(int size, const double *m, double *u, double *known, int *match, double *work, int *links);

/* found[i][j] = integral over [0, 1] of the product of the quantile functions of row i of x [n][n] and row j of y [m][m]: rows ascending
 * and followed by a 0 [n + 1], ex [n][n + 1] and ey [m][m + 1] where their steps end (1 the last) and FAR after it. Every merge of a row
 * with a row takes n + m steps without a branch, which idle at 1 when both are used up; ROWS of them go side by side, since each waits
 * for its own last step. */
#define ROWS 8
void gfviz_row_correlations(int n, int m, const double *x, const double *ex, const double *y, const double *ey, double *found)
{
    for (int i = 0; i < n; i++) for (int j = 0; j < m; j += ROWS) {
        const double *xi = x + (size_t)i * (n + 1), *ei = ex + (size_t)i * (n + 1);
        const double *yj[ROWS], *ej[ROWS];
        double total[ROWS] = {0.0}, at[ROWS] = {0.0};
        int s[ROWS] = {0}, t[ROWS] = {0}, wide = m - j < ROWS ? m - j : ROWS;
        for (int w = 0; w < ROWS; w++) {
            size_t row = (size_t)(j + (w < wide ? w : 0)) * (m + 1);
            yj[w] = y + row;
            ej[w] = ey + row;
        }
        for (int step = 0; step < n + m; step++) for (int w = 0; w < ROWS; w++) {
            double left = ei[s[w]], right = ej[w][t[w]], next = left < right ? left : right;
            next = next < 1.0 ? next : 1.0;
            total[w] += (next - at[w]) * (xi[s[w]] * yj[w][t[w]]);
            at[w] = next;
            s[w] += left <= next;
            t[w] += right <= next;
        }
        for (int w = 0; w < wide; w++) found[(size_t)i * m + j + w] = total[w];
    }
}

/* Sorts a row ascending, starting from the order of last time (a permutation, kept up to date): insertion, which is fast because
 * multipliers move little from step to step. */
static void resort(int width, const double *row, int *at, double *out)
{
    for (int s = 0; s < width; s++) {
        int index = at[s], t = s;
        double x = row[index];
        for (; t > 0 && out[t - 1] > x; t--) { out[t] = out[t - 1]; at[t] = at[t - 1]; }
        out[t] = x;
        at[t] = index;
    }
}

/* Both matrices as the multipliers change them, c + skew and d - shift (+) shift, each row sorted: without its diagonal entry where
 * `held`. Orders [n][n] and sorted rows [n][n or n - 1] of each; column indices count the diagonal. room holds n doubles. */
void gfviz_skew_rows(int n, int held, const double *c, const double *d, const double *skew, const double *shift, int *order_x, int *order_y,
                     double *sorted_x, double *sorted_y, double *room)
{
    int width = held ? n - 1 : n;
    for (int i = 0; i < n; i++) {
        const double *ci = c + (size_t)i * n, *ai = skew + (size_t)i * n, *di = d + (size_t)i * n;
        for (int k = 0; k < n; k++) room[k] = ci[k] + ai[k];
        resort(width, room, order_x + (size_t)i * width, sorted_x + (size_t)i * width);
        for (int k = 0; k < n; k++) room[k] = di[k] - shift[i] - shift[k];
        resort(width, room, order_y + (size_t)i * width, sorted_y + (size_t)i * width);
    }
}

/* With the products of the sorted rows in corr [n][n] (used up): the value u + v of the assignment of rows to rows, its matching, and
 * the slopes of half the bound by skew [n][n] and by shift [n]. means are row sums of c; dc, dd the diagonals. prices are those of the
 * step before, and become this one's. work holds n * n + 11 n doubles, links 4 n ints. */
double gfviz_skew_solve(int n, int held, double *corr, const double *sums, const double *dc, const double *dd, const double *shift,
                        const int *order_x, const int *order_y, const double *sorted_x, const double *sorted_y, double *prices, int *match,
                        double *skew_slope, double *shift_slope, double *work, int *links)
{
    int width = held ? n - 1 : n, *back = links;
    double *partner = work, *u = work + (size_t)n * n, value;
    for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) {
        double x = corr[(size_t)i * n + j] + 2 * sums[i] * shift[j];
        corr[(size_t)i * n + j] = -(held ? x + dc[i] * (dd[j] - 2 * shift[j]) : x);
    }
    value = gfviz_assign_from(n, corr, u, prices, match, u + n, links + n);
    for (int i = 0; i < n; i++) back[match[i]] = i;
    for (int i = 0; i < n; i++) {
        double *row = partner + (size_t)i * n;
        const double *with = sorted_y + (size_t)match[i] * width;
        row[i] = 0.0;
        for (int t = 0; t < width; t++) row[order_x[(size_t)i * width + t]] = with[t];
    }
    for (int i = 0; i < n; i++) for (int k = 0; k < n; k++) skew_slope[(size_t)i * n + k] = partner[(size_t)k * n + i] - partner[(size_t)i * n + k];
    for (int j = 0; j < n; j++) shift_slope[j] = 2 * (held ? dc[back[j]] : 0.0) - 2 * sums[back[j]];
    for (int j = 0; j < n; j++) {
        const double *with = sorted_x + (size_t)back[j] * width;
        double sum = 0.0;
        for (int t = 0; t < width; t++) {
            sum += with[t];
            shift_slope[order_y[(size_t)j * width + t]] += with[t];
        }
        shift_slope[j] += sum;
    }
    return value;
}
