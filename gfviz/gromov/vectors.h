/* Scans of rows of doubles and sorting by keys, shared by the solvers of this folder. */
#pragma once
#include <math.h>
#include <stddef.h>

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

typedef struct { double key; int at; } Keyed;

static inline int by_key(const void *x, const void *y)
{
    double a = ((const Keyed *)x)->key, b = ((const Keyed *)y)->key;
    return (a > b) - (a < b);
}
