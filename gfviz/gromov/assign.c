/* Assignment by shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987, with their augmenting row reduction): duals u, v
 * with m[r][c] >= u[r] + v[c], equality on the matching. match[r] is the column of row r. work holds 4 * size doubles, links
 * 3 * size ints. Returns the value. */
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

/* From the column prices v, whatever they are. */
static double assign_at(int size, const double *m, double *u, double *v, int *match, double *work, int *links)
{
    double *dist = work, *open = work + size, *back = work + 2 * size, *final = work + 3 * size;
    int *row_of = links, *todo = links + size, *order = links + 2 * size, waiting = 0;
    double value = 0.0;
    for (int r = 0; r < size; r++) { row_of[r] = -1; match[r] = -1; todo[waiting++] = r; }
    for (int round = 0; round < 2; round++) {
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
                if (second > least && second < FAR && moves++ < size / 2) todo[--taken] = before; else todo[left++] = before;
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

static void column_minima(int size, const double *m, double *v)
{
    for (int c = 0; c < size; c++) v[c] = FAR;
    for (int r = 0; r < size; r++) for (int c = 0; c < size; c++) {
        double x = m[(size_t)r * size + c];
        v[c] = x < v[c] ? x : v[c];
    }
}

/* From the least of every column. */
double gfviz_assign(int size, const double *m, double *u, double *v, int *match, double *work, int *links)
{
    column_minima(size, m, v);
    return assign_at(size, m, u, v, match, work, links);
}

/* What prices v bound the value by: sum v + sum of the least m[r][c] - v[c] of each row. room holds size doubles. */
static double worth(int size, const double *m, const double *v, double *room)
{
    double value = 0.0;
    for (int c = 0; c < size; c++) value += v[c];
    for (int r = 0; r < size; r++) {
        for (int c = 0; c < size; c++) room[c] = m[(size_t)r * size + c] - v[c];
        value += least_of(size, room);
    }
    return value;
}

/* Prices at which neighbours along the diagonal are indifferent once rows and columns are sorted by their means, columns backwards if
 * `turned`: those of a Monge matrix, which costs of sorted rows nearly are. keys hold 2 * size. */
static void monotone_prices(int size, const double *m, double *v, const Keyed *keys, int turned)
{
    const Keyed *rows = keys, *cols = keys + size;
    double price = 0.0;
    for (int s = 0; s < size; s++) {
        int c = cols[turned ? size - 1 - s : s].at;
        if (s > 0) {
            int before = cols[turned ? size - s : s - 1].at;
            const double *up = m + (size_t)rows[s - 1].at * size, *row = m + (size_t)rows[s].at * size;
            price += (up[c] - up[before] + row[c] - row[before]) / 2;
        }
        v[c] = price;
    }
}

/* From the best of several prices, by what they bound the value by: the least of every column, those of sorted neighbours, and `known`
 * (those of a problem before this one, say; replaced by what is found). work holds 10 * size doubles, links 3 * size ints. */
double gfviz_assign_from(int size, const double *m, double *u, double *known, int *match, double *work, int *links)
{
    double *tried = work + 4 * size, *best = work + 5 * size;
    Keyed *keys = (Keyed *)(work + 6 * size);
    double most = worth(size, m, known, work), value;
    memcpy(best, known, sizeof(double) * size);
    for (int s = 0; s < 2 * size; s++) { keys[s].key = 0.0; keys[s].at = s % size; }
    for (int r = 0; r < size; r++) {
        const double *row = m + (size_t)r * size;
        double sum = 0.0;
        for (int c = 0; c < size; c++) { sum += row[c]; tried[c] = r ? tried[c] + row[c] : row[c]; }
        keys[r].key = sum;
    }
    for (int c = 0; c < size; c++) keys[size + c].key = tried[c];
    qsort(keys, size, sizeof(Keyed), by_key);
    qsort(keys + size, size, sizeof(Keyed), by_key);
    for (int way = 0; way < 3; way++) {
        if (way < 2) monotone_prices(size, m, tried, keys, way); else column_minima(size, m, tried);
        value = worth(size, m, tried, work);
        if (value > most) { most = value; memcpy(best, tried, sizeof(double) * size); }
    }
    memcpy(known, best, sizeof(double) * size);
    return assign_at(size, m, u, known, match, work, links);
}
