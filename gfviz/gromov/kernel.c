/* The two loops of gfviz.gromov that numpy cannot do well: the dual ascent of Hahn and Grant (Operations Research 46, 1998)
 * for quadratic assignment, and pairwise exchange. Compiled lazily by native.py; Python twins in dual.py and couplings.py.
 *
 * Layout of the quadratic costs: q[i][k][j][l] is what the pair (i -> j, k -> l) costs in the subproblem of (i, j). Its complement
 * q[k][i][l][j] belongs to the subproblem of (k, l): cost may move between the two, since both are paid together. Where only
 * permutations are compared (held), entries with k == i or l == j are never read: they come with i -> j or not at all.
 */
#include <math.h>
#include <string.h>

#define FAR 1e300

/* The least of x (FAR where none is below it), and the first place from c on whose x equals a value, or size: half of the time of an
 * assignment, and compilers make no vectors of them. */
#ifdef __AVX2__
#include <immintrin.h>
static inline double least_of(int size, const double *x)
{
    __m256d low = _mm256_set1_pd(FAR), high = low;
    double lane[4], least = FAR;
    int c = 0;
    for (; c + 8 <= size; c += 8) {
        low = _mm256_min_pd(_mm256_loadu_pd(x + c), low);
        high = _mm256_min_pd(_mm256_loadu_pd(x + c + 4), high);
    }
    _mm256_storeu_pd(lane, _mm256_min_pd(low, high));
    for (int w = 0; w < 4; w++) least = lane[w] < least ? lane[w] : least;
    for (; c < size; c++) least = x[c] < least ? x[c] : least;
    return least;
}

static inline int place_of(int size, const double *x, double value, int c)
{
    __m256d wanted = _mm256_set1_pd(value);
    for (; c + 4 <= size; c += 4) {
        int hits = _mm256_movemask_pd(_mm256_cmp_pd(_mm256_loadu_pd(x + c), wanted, _CMP_EQ_OQ));
        if (hits) return c + __builtin_ctz((unsigned)hits);
    }
    while (c < size && x[c] != value) c++;
    return c;
}
#else
static inline double least_of(int size, const double *x)
{
    double least = FAR;
    for (int c = 0; c < size; c++) least = x[c] < least ? x[c] : least;
    return least;
}

static inline int place_of(int size, const double *x, double value, int c)
{
    while (c < size && x[c] != value) c++;
    return c;
}
#endif

/* Assignment by shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987, with their augmenting row reduction): duals u, v
 * with m[r][c] >= u[r] + v[c], equality on the matching. match[r] is the column of row r. work holds 4 * size doubles, links
 * 3 * size ints. Returns the value. */
double gfviz_assign(int size, const double *m, double *u, double *v, int *match, double *work, int *links)
{
    double *dist = work, *open = work + size, *back = work + 2 * size, *final = work + 3 * size;
    int *row_of = links, *todo = links + size, *order = links + 2 * size, waiting = 0;
    double value = 0.0;
    for (int c = 0; c < size; c++) { v[c] = FAR; row_of[c] = -1; }
    for (int r = 0; r < size; r++) {
        const double *row = m + (size_t)r * size;
        for (int c = 0; c < size; c++) v[c] = row[c] < v[c] ? row[c] : v[c];
        todo[waiting++] = r;
        match[r] = -1;
    }
    for (int round = 0; round < 3; round++) {
        int left = 0, taken = 0, moves = 0, all = waiting;
        while (taken < all) {
            int r = todo[taken++];
            const double *row = m + (size_t)r * size;
            for (int c = 0; c < size; c++) dist[c] = row[c] - v[c];
            double least = least_of(size, dist);
            int first = least < FAR ? place_of(size, dist, least, 0) : 0, before = row_of[first];
            dist[first] = FAR;
            double second = least_of(size, dist);
            if (second > least && second < FAR) v[first] -= second - least;
            else if (before >= 0) {
                for (int c = place_of(size, dist, least, 0); c < size; c = place_of(size, dist, least, c + 1))
                    if (row_of[c] < 0) { first = c; before = -1; break; }
            }
            u[r] = row[first] - v[first];
            match[r] = first;
            row_of[first] = r;
            if (before >= 0) {
                match[before] = -1;
                /* a row thrown out by a strict improvement goes again at once, boundedly often; else in the next round */
                if (second > least && second < FAR && moves++ < 2 * size) todo[--taken] = before; else todo[left++] = before;
            }
        }
        waiting = left;
    }
    for (int r = 0; r < size; r++) if (match[r] >= 0) u[r] = m[(size_t)r * size + match[r]] - v[match[r]];
    for (int t = 0; t < waiting; t++) {
        int start = todo[t], r = start, last = -1, scanned = 0;
        double reach = 0.0;
        const double *own = m + (size_t)start * size;
        u[start] = FAR;
        for (int c = 0; c < size; c++) {
            double x = own[c] - v[c];
            u[start] = x < u[start] ? x : u[start];
            dist[c] = FAR;
            open[c] = v[c];
            back[c] = start;
        }
        for (;;) {
            const double *row = m + (size_t)r * size;
            double base = reach - u[r], from = r;
            for (int c = 0; c < size; c++) {
                double x = base + row[c] - open[c];
                back[c] = x < dist[c] ? from : back[c];
                dist[c] = x < dist[c] ? x : dist[c];
            }
            double least = least_of(size, dist);
            if (!(least < FAR)) return NAN; /* only for NaN or infinite costs */
            int next = place_of(size, dist, least, 0);
            for (int c = next; c < size; c = place_of(size, dist, least, c + 1)) if (row_of[c] < 0) { next = c; break; }
            reach = least > reach ? least : reach;
            if (row_of[next] < 0) { last = next; break; }
            final[next] = reach;
            order[scanned++] = next;
            dist[next] = FAR;
            open[next] = -FAR;
            r = row_of[next];
        }
        u[start] += reach;
        for (int s = 0; s < scanned; s++) {
            double ease = reach - final[order[s]];
            v[order[s]] -= ease;
            u[row_of[order[s]]] += ease;
        }
        for (int c = last;;) {
            int from = (int)back[c], before = match[from];
            row_of[c] = from;
            match[from] = c;
            if (from == start) break;
            c = before;
        }
    }
    for (int r = 0; r < size; r++) value += u[r];
    for (int c = 0; c < size; c++) value += v[c];
    return value;
}

/* Costs of block i shared with their complements: share of each sum goes there, and nothing of a negative one, since a block that was
 * solved before must keep its costs non-negative. Without `held` the block's own entries q[i][i] have
 * complements inside it. */
static void share_costs(int n, double *q, int i, double share, int held)
{
    size_t block = (size_t)n * n;
    double *mine = q + (size_t)i * n * block;
    for (int k = 0; k < n; k++) {
        double *to = mine + k * block, *from = q + ((size_t)k * n + i) * block;
        if (k != i) {
            for (int j = 0; j < n; j++)
                for (int l = 0; l < n; l++) {
                    double both = to[(size_t)j * n + l] + from[(size_t)l * n + j];
                    double left = both > 0 ? share * both : 0.0;
                    to[(size_t)j * n + l] = both - left;
                    from[(size_t)l * n + j] = left;
                }
        } else if (!held) {
            for (int j = 0; j < n; j++)
                for (int l = 0; l < j; l++) {
                    double both = (to[(size_t)j * n + l] + to[(size_t)l * n + j]) / 2;
                    to[(size_t)j * n + l] = to[(size_t)l * n + j] = both;
                }
        }
    }
}

/* One sweep over all subproblems. leader[n][n] are the linear costs: each is spread over its subproblem. Then, for each i, costs are
 * shared with their complements (nothing is shared where share < 0), its subproblems are solved and keep their reduced costs, and the
 * values become the new leaders. work: n^2 + 6 n doubles; links: 4 n ints. Returns the largest magnitude seen. */
double gfviz_dual_sweep(int n, double *q, double *leader, double share, int held, double *work, int *links)
{
    int size = held ? n - 1 : n;
    size_t block = (size_t)n * n;
    double *m = work, *u = m + block, *v = u + n, *line = v + n;
    int *match = links + 3 * n;
    double largest = 0.0;
    if (size < 1) return 0.0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) if (k != i || !held)
            for (int j = 0; j < n; j++) {
                double *row = q + ((size_t)i * n + k) * block + (size_t)j * n, spread = leader[(size_t)i * n + j] / size;
                for (int l = 0; l < n; l++) row[l] += spread;
            }
    for (int i = 0; i < n; i++) {
        double *mine = q + (size_t)i * n * block;
        if (share >= 0.0) share_costs(n, q, i, share, held);
        for (int j = 0; j < n; j++) {
            int gap = held ? j : n; /* the column left out */
            double *put = m;
            for (int k = 0; k < n; k++) if (k != i || !held) {
                const double *row = mine + k * block + (size_t)j * n;
                for (int l = 0; l < gap; l++) put[l] = row[l];
                for (int l = gap + 1; l < n; l++) put[l - 1] = row[l];
                put += size;
            }
            double top = 0.0;
            for (size_t s = 0; s < (size_t)size * size; s++) { double x = fabs(m[s]); top = x > top ? x : top; }
            if (top > largest) largest = top;
            leader[(size_t)i * n + j] = gfviz_assign(size, m, u, v, match, line, links);
            const double *get = m;
            int r = 0;
            for (int k = 0; k < n; k++) if (k != i || !held) {
                double *row = mine + k * block + (size_t)j * n;
                for (int l = 0; l < gap; l++) row[l] = get[l] - u[r] - v[l];
                for (int l = gap + 1; l < n; l++) row[l] = get[l - 1] - u[r] - v[l - 1];
                get += size;
                r++;
            }
        }
    }
    return largest;
}

/* now[s] and before[s] become now[s] + pace (now[s] - before[s]) and now[s]. */
void gfviz_extrapolate(size_t count, double *now, double *before, double pace)
{
    for (size_t s = 0; s < count; s++) {
        double x = now[s];
        now[s] = x + pace * (x - before[s]);
        before[s] = x;
    }
}

/* Pairwise exchange: raises sum c[i][k] d[match[i]][match[k]] by the best swap until none gains more than floor. e = d permuted and
 * g = c e are kept up to date. Returns the number of swaps. */
int gfviz_swap(int n, const double *c, double *e, double *g, int *match, double floor, int limit)
{
    int swaps = 0;
    for (; swaps < limit; swaps++) {
        double best = floor;
        int bi = -1, bk = -1;
        for (int i = 0; i < n; i++) {
            const double *ci = c + (size_t)i * n, *ei = e + (size_t)i * n, *gi = g + (size_t)i * n;
            double cii = ci[i], eii = ei[i], gii = gi[i];
            for (int k = i + 1; k < n; k++) {
                size_t kk = (size_t)k * n + k;
                double gain = 2 * (gi[k] + g[(size_t)k * n + i] - gii - g[kk])
                            + (cii + c[kk] - 2 * ci[k]) * (eii + e[kk] - 2 * ei[k]);
                if (gain > best) { best = gain; bi = i; bk = k; }
            }
        }
        if (bi < 0) break;
        int t = match[bi]; match[bi] = match[bk]; match[bk] = t;
        double *ei = e + (size_t)bi * n, *ek = e + (size_t)bk * n;
        for (int x = 0; x < n; x++) {
            double factor = c[(size_t)x * n + bi] - c[(size_t)x * n + bk], *gx = g + (size_t)x * n;
            for (int y = 0; y < n; y++) gx[y] += factor * (ek[y] - ei[y]);
            double s = gx[bi]; gx[bi] = gx[bk]; gx[bk] = s;
        }
        for (int y = 0; y < n; y++) { double s = ei[y]; ei[y] = ek[y]; ek[y] = s; }
        for (int x = 0; x < n; x++) { double *ex = e + (size_t)x * n, s = ex[bi]; ex[bi] = ex[bk]; ex[bk] = s; }
    }
    return swaps;
}

/* Moves mass along 2x2 cycles of a plan's cells: (i, j) and (k, l) give theta to (i, l) and (k, j); p = 2. field[n][m] = -2 C pi D is kept
 * up to date, at[n][m] is the slot of each cell or -1; slots hold rows, cols and mass, *count of them. Goes through the slots from `first`,
 * each with its best partner as long as that gains more than floor times its mass, at most `stays` times, until `limit` moves are made.
 * Returns the slot to go on from; *moves is raised by the moves made. Slots never outnumber n * m. step and where_to hold m numbers. */
int gfviz_cycles(int n, int m, const double *c, const double *d, double *field, int *rows, int *cols, double *mass, int *at, int *count,
                 int first, int stays, double floor, double tiny, int limit, int *moves, double *step, int *where_to)
{
    int made = 0, slot = first;
    for (; slot < *count && made < limit; slot++) for (int again = stays; again > 0 && mass[slot] > 0; again--) {
        int i = rows[slot], j = cols[slot], partner = -1;
        const double *ci = c + (size_t)i * n, *dj = d + (size_t)j * m, *fi = field + (size_t)i * m;
        double cii = ci[i], djj = dj[j], fij = fi[j], own = mass[slot], best = -floor * own, theta = 0.0;
        for (int t = 0; t < *count; t++) {
            int k = rows[t], l = cols[t];
            const double *fk = field + (size_t)k * m;
            double linear = 2 * (fi[l] + fk[j] - fij - fk[l]);
            double curve = -2 * (cii + c[(size_t)k * n + k] - 2 * ci[k]) * (djj + d[(size_t)l * m + l] - 2 * dj[l]);
            double x = mass[t] < own ? mass[t] : own;
            if (curve > 0) {
                double turn = -linear / (2 * curve);
                x = turn < x ? turn : x;
                x = x > 0 ? x : 0;
            }
            double change = x * (linear + x * curve);
            if (change < best && x > tiny) { best = change; theta = x; partner = t; }
        }
        if (partner < 0) break;
        made++;
        int k = rows[partner], l = cols[partner], spare[2], spares = 0, used = 0, pair[2] = {slot, partner};
        const double *dl = d + (size_t)l * m, *ck = c + (size_t)k * n;
        int wide = 0; /* token graphs are sparse: most of a step is zero */
        for (int y = 0; y < m; y++) if (dj[y] != dl[y]) { step[wide] = dj[y] - dl[y]; where_to[wide++] = y; }
        for (int x = 0; x < n; x++) {
            double factor = 2 * theta * (ci[x] - ck[x]), *fx = field + (size_t)x * m;
            if (factor == 0) continue;
            if (2 * wide > m) for (int y = 0; y < m; y++) fx[y] += factor * (dj[y] - dl[y]);
            else for (int y = 0; y < wide; y++) fx[where_to[y]] += factor * step[y];
        }
        for (int s = 0; s < 2; s++) {
            double left = mass[pair[s]] - theta;
            mass[pair[s]] = left > tiny ? left : 0.0;
            if (mass[pair[s]] == 0.0) { at[(size_t)rows[pair[s]] * m + cols[pair[s]]] = -1; spare[spares++] = pair[s]; }
        }
        int to_row[2] = {i, k}, to_col[2] = {l, j};
        for (int s = 0; s < 2; s++) {
            int *where = at + (size_t)to_row[s] * m + to_col[s];
            if (*where >= 0) { mass[*where] += theta; continue; }
            int cell = used < spares ? spare[used++] : (*count)++;
            rows[cell] = to_row[s];
            cols[cell] = to_col[s];
            mass[cell] = theta;
            *where = cell;
        }
    }
    *moves += made;
    return slot;
}

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

/* Sorts each row of values[rows][width] ascending, starting from the order of last time (a permutation of 0..width-1 a row, kept up
 * to date): insertion, which is fast because multipliers move little from step to step. */
void gfviz_resort(int rows, int width, const double *values, int *order, double *sorted)
{
    for (int r = 0; r < rows; r++) {
        const double *row = values + (size_t)r * width;
        int *at = order + (size_t)r * width;
        double *out = sorted + (size_t)r * width;
        for (int s = 0; s < width; s++) {
            int index = at[s], t = s;
            double x = row[index];
            for (; t > 0 && out[t - 1] > x; t--) { out[t] = out[t - 1]; at[t] = at[t - 1]; }
            out[t] = x;
            at[t] = index;
        }
    }
}
