/* The dual ascent of Hahn and Grant (Operations Research 46, 1998) for quadratic assignment. Twin in dual.py.
 *
 * Layout of the quadratic costs: q[i][k][j][l] is what the pair (i -> j, k -> l) costs in the subproblem of (i, j). Its complement
 * q[k][i][l][j] belongs to the subproblem of (k, l): cost may move between the two, since both are paid together. Where only
 * permutations are compared (held), entries with k == i or l == j are never read: they come with i -> j or not at all.
 */
#include <math.h>
#include <stddef.h>

double gfviz_assign(int size, const double *m, double *u, double *v, int *match, double *work, int *links);
int gfviz_transport(int n, int m, const double *cost, const double *p, const double *q, int known, int *parent, double *mass, double *u,
                    double *v, double *work, int *links);

/* Costs of block i shared with their complements: share of each sum goes there, and nothing of a negative one, since a block that was
 * solved before must keep its costs non-negative. Without `held` the block's own entries q[i][i] have
 * complements inside it. */
static void share_costs(int n, int m, double *q, int i, double share, int held)
{
    size_t block = (size_t)m * m;
    double *mine = q + (size_t)i * n * block;
    for (int k = 0; k < n; k++) {
        double *to = mine + k * block, *from = q + ((size_t)k * n + i) * block;
        if (k != i) {
            for (int j = 0; j < m; j++)
                for (int l = 0; l < m; l++) {
                    double both = to[(size_t)j * m + l] + from[(size_t)l * m + j];
                    double left = both > 0 ? share * both : 0.0;
                    to[(size_t)j * m + l] = both - left;
                    from[(size_t)l * m + j] = left;
                }
        } else if (!held) {
            for (int j = 0; j < m; j++)
                for (int l = 0; l < j; l++) {
                    double both = (to[(size_t)j * m + l] + to[(size_t)l * m + j]) / 2;
                    to[(size_t)j * m + l] = to[(size_t)l * m + j] = both;
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
        if (share >= 0.0) share_costs(n, n, q, i, share, held);
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

/* The same where mass is split: q[n][n][m][m], weights p [n] and w [m], and transports for subproblems, each from its own basis of last
 * time (trees and masses [n m][n + m], if known). Potentials are made feasible whatever the solver's tolerance was. work: n m + 4 n + 4 m
 * doubles; links: 5 (n + m) ints. */
double gfviz_weighted_sweep(int n, int m, double *q, double *leader, double share, const double *p, const double *w, int known, int *trees,
                            double *masses, double *work, int *links)
{
    size_t block = (size_t)m * m;
    double *cost = work, *u = cost + (size_t)n * m, *v = u + n, *room = v + m, largest = 0.0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++)
            for (int j = 0; j < m; j++) {
                double *row = q + ((size_t)i * n + k) * block + (size_t)j * m, spread = leader[(size_t)i * m + j];
                for (int l = 0; l < m; l++) row[l] += spread;
            }
    for (int i = 0; i < n; i++) {
        double *mine = q + (size_t)i * n * block;
        if (share >= 0.0) share_costs(n, m, q, i, share, 0);
        for (int j = 0; j < m; j++) {
            size_t one = (size_t)i * m + j;
            for (int k = 0; k < n; k++) {
                const double *row = mine + k * block + (size_t)j * m;
                for (int l = 0; l < m; l++) {
                    double x = fabs(row[l]);
                    cost[(size_t)k * m + l] = row[l];
                    largest = x > largest ? x : largest;
                }
            }
            gfviz_transport(n, m, cost, p, w, known, trees + one * (n + m), masses + one * (n + m), u, v, room, links);
            double value = 0.0;
            for (int l = 0; l < m; l++) v[l] = cost[l] - u[0];
            for (int k = 1; k < n; k++) for (int l = 0; l < m; l++) {
                double x = cost[(size_t)k * m + l] - u[k];
                v[l] = x < v[l] ? x : v[l];
            }
            for (int l = 0; l < m; l++) value += w[l] * v[l];
            for (int k = 0; k < n; k++) {
                double *row = mine + k * block + (size_t)j * m, least = cost[(size_t)k * m] - v[0];
                for (int l = 1; l < m; l++) { double x = cost[(size_t)k * m + l] - v[l]; least = x < least ? x : least; }
                for (int l = 0; l < m; l++) row[l] = cost[(size_t)k * m + l] - least - v[l];
                value += p[k] * least;
            }
            leader[one] = value;
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
