/* The searches of gfviz.gromov that numpy cannot do well: pairwise exchange and cycles of mass. Twins in couplings.py and exchange.py. */
#include <stddef.h>

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
