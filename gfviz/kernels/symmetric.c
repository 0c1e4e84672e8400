/* One pass over a symmetric matrix: whether it equals its transpose bit for bit, and its weighted row means.
 *
 * Entry (i, j) is met together with (j, i), eight by eight, so that what is fetched is used whole and nothing is read
 * twice: rows of a power of two entries lie on the same few lines of the cache. Vectors are GNU C's, compiled to whatever
 * the processor has. Twin in numpy: symmetric.py.
 */
#include <stdint.h>
#include <string.h>

#define TILE 8
#define LANES 4
/* Rows of tiles taken together: neighbours on one memory page, fewer pages to look up. */
#define STRIP 32

typedef double lanes __attribute__((vector_size(32)));
typedef int64_t words __attribute__((vector_size(32)));

static inline lanes load(const double *x) {
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* Halves of two steps that turn four rows of four into columns. */
static inline lanes even(lanes a, lanes b) { return __builtin_shuffle(a, b, (words){0, 4, 2, 6}); }
static inline lanes odd(lanes a, lanes b) { return __builtin_shuffle(a, b, (words){1, 5, 3, 7}); }
static inline lanes low(lanes a, lanes b) { return __builtin_shuffle(a, b, (words){0, 1, 4, 5}); }
static inline lanes high(lanes a, lanes b) { return __builtin_shuffle(a, b, (words){2, 3, 6, 7}); }

/* means[i] = sum_j m[i][j] weights[j] of a matrix [n, n] without gaps; 0 where m is not its own transpose (means are
 * then of no use). NaN and infinities reach the means. */
int gfviz_symmetric_means(const double *m, int64_t n, const double *weights, double *means) {
    words off = {0, 0, 0, 0};
    int same = 1;
    int64_t whole = n - n % TILE;
    for (int64_t i = 0; i < n; i++) means[i] = 0.0;
    for (int64_t top = 0; top < whole; top += STRIP) {
        int64_t end = top + STRIP < whole ? top + STRIP : whole;
        lanes sums[STRIP];
        memset(sums, 0, sizeof sums);
        for (int64_t j = top; j < whole; j += TILE) {
            /* From memory, so many rows at once are more than the processor follows by itself. */
            for (int64_t i = top; i < end && i <= j; i++) __builtin_prefetch(m + i * n + j + 2 * TILE);
            for (int64_t i = top; i < end && i <= j; i += TILE) {
                lanes *own = sums + (i - top), moved[TILE / LANES] = {{0}};
                for (int r = 0; r < TILE; r += LANES) {
                    const double *u = weights + i + r;
                    lanes s0 = own[r], s1 = own[r + 1], s2 = own[r + 2], s3 = own[r + 3];
                    for (int c = 0; c < TILE; c += LANES) {
                        const double *x = m + (i + r) * n + j + c, *y = m + (j + c) * n + i + r;
                        lanes v = load(weights + j + c);
                        lanes y0 = load(y), y1 = load(y + n), y2 = load(y + 2 * n), y3 = load(y + 3 * n);
                        lanes t0 = even(y0, y1), t1 = odd(y0, y1), t2 = even(y2, y3), t3 = odd(y2, y3);
                        lanes x0 = load(x), x1 = load(x + n), x2 = load(x + 2 * n), x3 = load(x + 3 * n);
                        off |= ((words)x0 ^ (words)low(t0, t2)) | ((words)x1 ^ (words)low(t1, t3));
                        off |= ((words)x2 ^ (words)high(t0, t2)) | ((words)x3 ^ (words)high(t1, t3));
                        s0 += x0 * v, s1 += x1 * v, s2 += x2 * v, s3 += x3 * v;
                        moved[c / LANES] += (x0 * u[0] + x1 * u[1]) + (x2 * u[2] + x3 * u[3]);
                    }
                    own[r] = s0, own[r + 1] = s1, own[r + 2] = s2, own[r + 3] = s3;
                }
                if (j > i)
                    for (int c = 0; c < TILE; c += LANES) {
                        lanes sum = load(means + j + c) + moved[c / LANES];
                        memcpy(means + j + c, &sum, sizeof sum);
                    }
            }
        }
        for (int64_t i = top; i < end; i++) {
            lanes s = sums[i - top];
            means[i] += (s[0] + s[1]) + (s[2] + s[3]);
        }
    }
    for (int64_t j = whole; j < n; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            same &= memcmp(m + i * n + j, m + j * n + i, sizeof *m) == 0;
            if (i < whole) means[i] += m[j * n + i] * weights[j];
            sum += m[j * n + i] * weights[i];
        }
        means[j] = sum;
    }
    return same && !(off[0] | off[1] | off[2] | off[3]);
}
