/* Transport of p [n] to q [m] by the network simplex on the dense bipartite graph, from a given basis if there is one: what follows a
 * problem like it takes few pivots. Trees are kept strongly feasible (Cunningham, Mathematical Programming 11, 1976), so that ties do not
 * make it cycle. Twin in transport.py (POT's).
 *
 * Nodes are the rows 0..n-1 and the columns n..n+m-1. parent[node] (-1 at the root) and mass[node], what goes over the edge to the parent,
 * are the basis and its flow. */
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

typedef struct {
    int n, m, *parent, *depth, *child, *after, *before, *stack;
    double *mass, *u, *v;
    const double *cost;
} Tree;

static void attach(Tree *t, int node, int to)
{
    t->parent[node] = to;
    t->before[node] = -1;
    t->after[node] = t->child[to];
    if (t->child[to] >= 0) t->before[t->child[to]] = node;
    t->child[to] = node;
}

static void detach(Tree *t, int node)
{
    int before = t->before[node], after = t->after[node];
    if (before >= 0) t->after[before] = after; else t->child[t->parent[node]] = after;
    if (after >= 0) t->before[after] = before;
}

/* Depths and potentials below a node whose own are right. */
static void settle(Tree *t, int top)
{
    int waiting = 0;
    t->stack[waiting++] = top;
    while (waiting) {
        int node = t->stack[--waiting];
        for (int x = t->child[node]; x >= 0; x = t->after[x]) {
            t->depth[x] = t->depth[node] + 1;
            if (x < t->n) t->u[x] = t->cost[(size_t)x * t->m + node - t->n] - t->v[node - t->n];
            else t->v[x - t->n] = t->cost[(size_t)node * t->m + x - t->n] - t->u[node];
            t->stack[waiting++] = x;
        }
    }
}

/* The monotone coupling of rows and columns sorted by their mean costs, as a tree rooted at the last column. Where a row and a column run
 * out together the column is retired first: an edge without mass then leads from a row up to its column, as strong feasibility asks. */
static void start(Tree *t, const double *p, const double *q, Keyed *keys)
{
    int n = t->n, m = t->m, r = 0, c = 0;
    Keyed *rows = keys, *cols = keys + n;
    for (int i = 0; i < n; i++) { rows[i].key = 0.0; rows[i].at = i; }
    for (int j = 0; j < m; j++) { cols[j].key = 0.0; cols[j].at = j; }
    for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) {
        double x = t->cost[(size_t)i * m + j];
        rows[i].key += x * q[j];
        cols[j].key += x * p[i];
    }
    qsort(rows, n, sizeof(Keyed), by_key);
    qsort(cols, m, sizeof(Keyed), by_key);
    double have = p[rows[0].at], need = q[cols[0].at];
    while (r < n - 1 || c < m - 1) {
        int row = rows[r].at, col = n + cols[c].at;
        if (r == n - 1 || (c < m - 1 && need <= have)) { /* what rounding has left over goes to the last ones */
            t->parent[col] = row;
            t->mass[col] = need;
            have = have > need ? have - need : 0.0;
            need = q[cols[++c].at];
        } else {
            t->parent[row] = col;
            t->mass[row] = have;
            need = need > have ? need - have : 0.0;
            have = p[rows[++r].at];
        }
    }
    int row = rows[n - 1].at, col = n + cols[m - 1].at;
    t->parent[row] = col;
    t->mass[row] = have < need ? have : need;
    t->parent[col] = -1;
    t->mass[col] = 0.0;
}

/* Brings the edge of row r and column c into the tree. */
static void pivot(Tree *t, int r, int c)
{
    int n = t->n, x = r, y = c, out = -1, below_c = 0;
    double least = FAR;
    while (x != y) { /* what loses mass: edges of rows on r's way up, of columns on c's; of equal ones the last from the apex on */
        if (t->depth[x] >= t->depth[y]) {
            if (x < n && t->mass[x] < least) { least = t->mass[x]; out = x; below_c = 0; }
            x = t->parent[x];
        } else {
            if (y >= n && t->mass[y] <= least) { least = t->mass[y]; out = y; below_c = 1; }
            y = t->parent[y];
        }
    }
    for (int s = r; s != x; s = t->parent[s]) t->mass[s] += s < n ? -least : least;
    for (int s = c; s != x; s = t->parent[s]) t->mass[s] += s < n ? least : -least;
    int node = below_c ? c : r, to = below_c ? r : c, top = node;
    double carried = least;
    for (;;) { /* turn the edges from `node` up to the one that leaves */
        int above = t->parent[node], last = node == out;
        double had = t->mass[node];
        detach(t, node);
        attach(t, node, to);
        t->mass[node] = carried;
        carried = had;
        to = node;
        node = above;
        if (last) break;
    }
    int above = t->parent[top];
    t->depth[top] = t->depth[above] + 1;
    if (top < n) t->u[top] = t->cost[(size_t)top * t->m + above - n] - t->v[above - n];
    else t->v[top - n] = t->cost[(size_t)above * t->m + top - n] - t->u[above];
    settle(t, top);
}

/* u and v of a cheapest plan, and its tree in parent and mass: `known` says that they hold one already, for the same p and q. work holds
 * 3 n + 3 m doubles, links 5 (n + m) ints. Returns the pivots made, or -1 where there were too many (the tree is a plan all the same). */
int gfviz_transport(int n, int m, const double *cost, const double *p, const double *q, int known, int *parent, double *mass, double *u,
                    double *v, double *work, int *links)
{
    int all = n + m, root = 0, pivots = 0, limit = 200 * all, block = n < 8 ? n : 8, row = 0;
    double scale = 0.0, *gap = work;
    Tree t = {n, m, parent, links, links + all, links + 2 * all, links + 3 * all, links + 4 * all, mass, u, v, cost};
    if (!known) start(&t, p, q, (Keyed *)(work + m));
    for (int s = 0; s < all; s++) t.child[s] = -1;
    for (int s = 0; s < all; s++) if (parent[s] >= 0) attach(&t, s, parent[s]); else root = s;
    t.depth[root] = 0;
    if (root < n) u[root] = 0.0; else v[root - n] = 0.0;
    settle(&t, root);
    for (size_t s = 0; s < (size_t)n * m; s++) { double x = fabs(cost[s]); scale = x > scale ? x : scale; }
    double floor = -1e-14 * scale;
    for (int clean = 0; clean < n;) {
        int best_row = -1, best_col = -1;
        double best = floor;
        for (int s = 0; s < block && clean < n; s++, clean++) {
            const double *c = cost + (size_t)row * m;
            for (int j = 0; j < m; j++) gap[j] = c[j] - v[j];
            double least = least_of(m, gap);
            if (least - u[row] < best) { best = least - u[row]; best_row = row; best_col = place_of(m, gap, least, 0); }
            row = row + 1 < n ? row + 1 : 0;
        }
        if (best_row < 0) continue;
        if (++pivots > limit) return -1;
        pivot(&t, best_row, n + best_col);
        clean = 0;
    }
    return pivots;
}
