/* The layout's rounds: every edge pulls, and each node is pushed by a few others. Twin in numpy: layout.py, which adds
 * the same numbers in the same order. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline double within(double x, double bound) { return x < -bound ? -bound : x > bound ? bound : x; }

/* Moves x, y [n] through `rounds` rounds. Edges are (i, j, pull) [edges]; in each round node v is pushed by the nodes
 * v + shift (mod n) for its `shifts` shifts [rounds, shifts] below n, in proportion to push[v]. Returns 0 where memory
 * was there. */
int gfviz_forces(int64_t n, int64_t edges, const int64_t *i, const int64_t *j, const double *pull, const double *push,
                 int64_t rounds, int64_t shifts, const int64_t *shift, double *x, double *y) {
    double *at = malloc(4 * n * sizeof *at);
    if (!at) return 1;
    /* What edges that begin at a node, and those that end there, add up to. */
    double *from_x = at, *from_y = at + n, *to_x = at + 2 * n, *to_y = at + 3 * n;
    for (int64_t round = 0; round < rounds; round++) {
        double rate = 1.0 - (double)round / (double)rounds;
        memset(at, 0, 4 * n * sizeof *at);
        for (int64_t e = 0; e < edges; e++) {
            double dx = x[i[e]] - x[j[e]], dy = y[i[e]] - y[j[e]];
            double drawn = -2.0 * pull[e] / (1.0 + (dx * dx + dy * dy));
            double force_x = within(drawn * dx, 4.0), force_y = within(drawn * dy, 4.0);
            from_x[i[e]] += force_x, from_y[i[e]] += force_y;
            to_x[j[e]] += force_x, to_y[j[e]] += force_y;
        }
        for (int64_t v = 0; v < n; v++) from_x[v] -= to_x[v], from_y[v] -= to_y[v];
        for (int64_t s = 0; s < shifts; s++) {
            int64_t by = shift[round * shifts + s];
            /* In two runs without a remainder, which the compiler turns into vectors. */
            for (int half = 0; half < 2; half++) {
                int64_t first = half ? n - by : 0, last = half ? n : n - by, to = half ? by - n : by;
                for (int64_t v = first; v < last; v++) {
                    double dx = x[v] - x[v + to], dy = y[v] - y[v + to], square = dx * dx + dy * dy;
                    double away = push[v] * 2.0 / ((0.05 + square) * (1.0 + square));
                    from_x[v] += within(away * dx, 4.0), from_y[v] += within(away * dy, 4.0);
                }
            }
        }
        for (int64_t v = 0; v < n; v++) {
            double move_x = from_x[v] - 0.004 * x[v], move_y = from_y[v] - 0.004 * y[v];
            double length = sqrt(move_x * move_x + move_y * move_y);
            double bound = 2.0 / (length < 1e-12 ? 1e-12 : length);
            bound = bound > 1.0 ? 1.0 : bound;
            x[v] += rate * move_x * bound, y[v] += rate * move_y * bound;
        }
    }
    free(at);
    return 0;
}
