/* One level of Louvain: single nodes change their community while modularity grows. Twin in Python: communities.py, which
 * takes the same steps in the same order and adds the same numbers in the same order. */
#include <stdint.h>
#include <stdlib.h>

/* home[n]: the community of each node, on entry its own number. The level is CSR (start[n + 1], neighbour, weight) and
 * `queue` [n] holds the nodes in the order in which they are looked at. A move has to gain more than `margin`. Returns 0
 * where memory was there. */
int gfviz_local_moves(int64_t n, const int64_t *start, const int64_t *neighbour, const double *weight,
                      const double *degree, double scale, double margin, int64_t *queue, int64_t *home) {
    double *filled = malloc(n * sizeof *filled), *link = calloc(n, sizeof *link);
    int64_t *met = malloc(n * sizeof *met);
    char *waiting = malloc(n), *known = calloc(n, 1);
    int failed = !filled || !link || !met || !waiting || !known;
    for (int64_t node = 0; !failed && node < n; node++) filled[node] = degree[node], waiting[node] = 1;
    /* Nobody waits twice, so that n places in a ring are enough. */
    for (int64_t head = 0, left = failed ? 0 : n; left > 0;) {
        int64_t node = queue[head], count = 0, here = home[node];
        double own = degree[node];
        head = head + 1 < n ? head + 1 : 0;
        left--;
        waiting[node] = 0;
        for (int64_t k = start[node]; k < start[node + 1]; k++) {
            int64_t group = home[neighbour[k]];
            if (neighbour[k] == node) continue;
            if (!known[group]) known[group] = 1, met[count++] = group;
            link[group] += weight[k];
        }
        filled[here] -= own;
        int64_t best = here;
        double gain = link[here] - own * filled[here] * scale;
        for (int64_t m = 0; m < count; m++) {
            double value = link[met[m]] - own * filled[met[m]] * scale;
            if (value > gain + margin) best = met[m], gain = value;
        }
        for (int64_t m = 0; m < count; m++) known[met[m]] = 0, link[met[m]] = 0.0;
        filled[best] += own;
        if (best == here) continue;
        home[node] = best;
        for (int64_t k = start[node]; k < start[node + 1]; k++) {
            int64_t other = neighbour[k];
            if (home[other] == best || waiting[other]) continue;
            int64_t place = head + left;
            waiting[other] = 1;
            queue[place < n ? place : place - n] = other;
            left++;
        }
    }
    free(filled), free(link), free(met), free(waiting), free(known);
    return failed;
}
