/* Top-k, logsumexp and their gradient over rows of logits, in one pass each.
 *
 * The compiler vectorises the loops (`omp simd` allows it to reorder sums; no OpenMP runtime is linked), so the file is
 * plain C11 and holds no processor's instructions. Two facts carry the forward pass. A row is read in stretches that
 * stay in the first-level cache: maxima of its 64-wide blocks, then the sum of exponentials. The k-th largest block
 * maximum is a lower bound of the k-th largest logit, so only blocks that reach it are looked at again.
 *
 * Order is that of `key`, an integer that grows with the float: NaN above +inf, as in torch, and -0 equal to 0. Among
 * equal logits the smaller id comes first, so the answer depends neither on the vector width nor on the threads.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
#define PART 16
#define STRETCH 512
/* How far ahead memory is asked for: the sums of one stretch hide the fetching of another. */
#define AHEAD (2 * STRETCH)
#define LOG2E 1.44269504f
/* Sums are kept relative to a shift that may lag behind the maximum by this power of two: times V it still fits. */
#define LAG 60.0f
/* Logits beyond this are whole numbers of powers apart in float; they go the slow way, in double. */
#define LARGE 1e6f

enum { FLOAT32 = 0, BFLOAT16 = 1 };

static inline float float_of(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline int32_t bits_of(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* 2^t for t <= 126: 2^n · 2^f with |f| <= 1/2 and a polynomial for 2^f (minimax, relative error 1.1e-7, exact at 0).
 * Below -126 it stays at 2^-126 instead of reaching 0; NaN comes through. */
static inline float power_of_two(float t) {
    const float magic = 12582912.0f + 127.0f; /* 1.5·2^23 leaves the rounded t in the low bits, 127 biases it */
    t = -126.0f > t ? -126.0f : t;
    float rounded = t + magic;
    float f = t - (rounded - magic);
    float power = 1.32647273e-3f;
    power = power * f + 9.67151299e-3f;
    power = power * f + 5.55073358e-2f;
    power = power * f + 2.40222424e-1f;
    power = power * f + 6.93147004e-1f;
    power = power * f + 1.0f;
    return power * float_of((int32_t)((uint32_t)bits_of(rounded) << 23));
}

static inline int32_t key(float value) {
    int32_t bits = bits_of(value + 0.0f); /* -0 becomes 0 */
    int32_t ordered = bits ^ ((bits >> 31) & 0x7fffffff);
    return (bits & 0x7fffffff) > 0x7f800000 ? INT32_MAX : ordered;
}

/* The stretch [start, start + count) of a row as floats: the row itself, or its conversion in `buffer`. */
static inline const float *stretch(const void *row, int kind, int64_t start, int64_t count, float *buffer) {
    if (kind == FLOAT32) return (const float *)row + start;
    const uint16_t *half = (const uint16_t *)row + start;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) buffer[i] = float_of((int32_t)((uint32_t)half[i] << 16));
    return buffer;
}

static inline float largest(const float *x, int64_t count) {
    float best = -INFINITY;
#pragma omp simd reduction(max : best)
    for (int64_t i = 0; i < count; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/* Sum of 2^(x·LOG2E − shift): shift is in powers of two, so that one fused multiply-add gives the exponent. */
static inline float sum_of_powers(const float *x, int64_t count, float shift) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += power_of_two(x[i] * LOG2E - shift);
    return sum;
}

/* The logarithm of `sum`, whose terms were taken relative to `shift`: undone with the very LOG2E that was used. */
static inline double logarithm(double sum, float shift) { return shift / (double)LOG2E + log(sum); }

static inline void fetch(const void *row, int kind, int64_t start, int64_t width) {
    int64_t size = kind == FLOAT32 ? 4 : 2, stop = start + STRETCH < width ? start + STRETCH : width;
    for (int64_t i = start; i < stop; i += 64 / size) __builtin_prefetch((const char *)row + i * size);
}

/* Block maxima as keys and the logsumexp of a row whose every stretch has a maximum of ordinary size; 0 where not. */
static int scan_finite(const void *row, int kind, int64_t width, int32_t *maxima, float *buffer, double *total) {
    double sum = 0.0;
    float shift = -INFINITY;
    for (int64_t start = 0; start < width; start += STRETCH) {
        int64_t count = width - start < STRETCH ? width - start : STRETCH;
        const float *x = stretch(row, kind, start, count, buffer);
        float best = -INFINITY;
        fetch(row, kind, start + AHEAD, width);
        for (int64_t i = 0; i < count; i += BLOCK) {
            float maximum = i + BLOCK <= count ? largest(x + i, BLOCK) : largest(x + i, count - i);
            maxima[(start + i) / BLOCK] = key(maximum);
            best = maximum > best ? maximum : best;
        }
        if (!(fabsf(best) < LARGE)) return 0;
        if (best * LOG2E > shift + LAG) {
            float moved = best * LOG2E;
            sum *= exp2((double)shift - moved);
            shift = moved;
        }
        sum += sum_of_powers(x, count, shift);
    }
    *total = logarithm(sum, shift);
    return isfinite(sum);
}

/* The same for any row, at leisure: padding and forbidden tokens bring NaN and infinities. */
static void scan_any(const void *row, int kind, int64_t width, int32_t *maxima, float *buffer, double *total) {
    int32_t best = INT32_MIN;
    for (int64_t start = 0; start < width; start += BLOCK) {
        int64_t count = width - start < BLOCK ? width - start : BLOCK;
        const float *x = stretch(row, kind, start, count, buffer);
        int32_t maximum = INT32_MIN;
#pragma omp simd reduction(max : maximum)
        for (int64_t i = 0; i < count; i++) {
            int32_t k = key(x[i]);
            maximum = k > maximum ? k : maximum;
        }
        maxima[start / BLOCK] = maximum;
        best = maximum > best ? maximum : best;
    }
    float top = best == INT32_MAX ? NAN : float_of(best ^ ((best >> 31) & 0x7fffffff));
    *total = top;
    if (!isfinite(top)) return;
    double sum = 0.0;
    for (int64_t start = 0; start < width; start += STRETCH) {
        int64_t count = width - start < STRETCH ? width - start : STRETCH;
        const float *x = stretch(row, kind, start, count, buffer);
        for (int64_t i = 0; i < count; i++) sum += exp((double)x[i] - top);
    }
    *total = top + log(sum);
}

static inline int64_t reaching(const int32_t *keys, int64_t count, int32_t bound) {
    int32_t found = 0;
#pragma omp simd reduction(+ : found)
    for (int64_t i = 0; i < count; i++) found += keys[i] >= bound;
    return found;
}

/* A bound that at least k keys reach, by bisection: the k-th largest key, or one that no more than `enough` reach. */
static int32_t bound_of(const int32_t *keys, int64_t count, int64_t k, int64_t enough) {
    int32_t low = INT32_MAX, high = INT32_MIN;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t i = 0; i < count; i++) {
        low = keys[i] < low ? keys[i] : low;
        high = keys[i] > high ? keys[i] : high;
    }
    while (low < high) {
        int32_t middle = (int32_t)(((int64_t)low + high + 1) >> 1);
        int64_t found = reaching(keys, count, middle);
        if (found < k) {
            high = middle - 1;
        } else {
            low = middle;
            if (found <= enough) break;
        }
    }
    return low;
}

static void select_row(const void *row, int kind, int64_t width, int64_t k, const int32_t *maxima, int32_t *keys,
                       int32_t *places, uint64_t *chosen, float *buffer, void *values, int64_t *ids) {
    int64_t blocks = (width + BLOCK - 1) / BLOCK, candidates = 0;
    int32_t bound = blocks <= k ? INT32_MIN : bound_of(maxima, blocks, k, k + k / 2);
    for (int64_t block = 0; block < blocks; block++) {
        if (maxima[block] < bound) continue;
        int64_t start = block * BLOCK, count = width - start < BLOCK ? width - start : BLOCK;
        const float *x = stretch(row, kind, start, count, buffer);
        for (int64_t part = 0; part < count; part += PART) {
            int64_t end = part + PART < count ? part + PART : count;
            int32_t any = 0;
#pragma omp simd reduction(| : any)
            for (int64_t i = part; i < end; i++) any |= key(x[i]) >= bound;
            for (int64_t i = part; any && i < end; i++) {
                int32_t this = key(x[i]);
                keys[candidates] = this;
                places[candidates] = (int32_t)(start + i);
                candidates += this >= bound;
            }
        }
    }
    bound = bound_of(keys, candidates, k, k);
    int64_t ties = k - (bound == INT32_MAX ? 0 : reaching(keys, candidates, bound + 1)), filled = 0;
    for (int64_t i = 0; i < candidates && filled < k; i++) {
        if (keys[i] < bound || (keys[i] == bound && ties-- <= 0)) continue;
        uint64_t packed = (uint64_t)((uint32_t)keys[i] ^ 0x80000000u) << 32 | (0xffffffffu - (uint32_t)places[i]);
        int64_t at = filled++;
        for (; at > 0 && chosen[at - 1] < packed; at--) chosen[at] = chosen[at - 1];
        chosen[at] = packed;
    }
    for (int64_t j = 0; j < k; j++) {
        int64_t id = (int64_t)(0xffffffffu - (uint32_t)chosen[j]);
        ids[j] = id;
        if (kind == FLOAT32)
            ((float *)values)[j] = ((const float *)row)[id];
        else
            ((uint16_t *)values)[j] = ((const uint16_t *)row)[id];
    }
}

/* Rows [first, last) of logits [N, width], `stride` elements apart; values and ids [N, k], totals [N]. 0, or 1 where
 * memory is short. Rows are independent: threads take ranges of them. */
int gfviz_forward(const void *logits, int kind, int64_t stride, int64_t width, int64_t k, int64_t first, int64_t last,
                  void *values, int64_t *ids, float *totals) {
    int64_t size = kind == FLOAT32 ? 4 : 2, blocks = (width + BLOCK - 1) / BLOCK;
    /* Collecting writes one element past the last candidate. */
    int32_t *keys = malloc(sizeof *keys * (size_t)(width + 1)), *places = malloc(sizeof *places * (size_t)(width + 1));
    int32_t *maxima = malloc(sizeof *maxima * (size_t)blocks);
    uint64_t *chosen = malloc(sizeof *chosen * (size_t)(k + 1));
    float *buffer = malloc(sizeof *buffer * STRETCH);
    int short_of_memory = !keys || !places || !maxima || !chosen || !buffer;
    for (int64_t n = first; n < last && !short_of_memory; n++) {
        const char *row = (const char *)logits + n * stride * size;
        double total;
        if (!scan_finite(row, kind, width, maxima, buffer, &total))
            scan_any(row, kind, width, maxima, buffer, &total);
        totals[n] = (float)total;
        select_row(row, kind, width, k, maxima, keys, places, chosen, buffer, (char *)values + n * k * size, ids + n * k);
    }
    free(keys), free(places), free(maxima), free(chosen), free(buffer);
    return short_of_memory;
}

static inline uint16_t rounded_half(float value) {
    uint32_t bits = (uint32_t)bits_of(value);
    uint32_t even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : even);
}

static inline float softmax_entry(float x, float total) {
    float power = power_of_two((x - total) * LOG2E);
    return x - total < -87.0f ? 0.0f : power;
}

/* gradient[n, i] = of_total[n] · exp(logits[n, i] − totals[n]), plus of_values[n, j] at ids[n, j], written once into a
 * gradient [N, width] without gaps. Rows with of_total 0 read nothing: 0 · NaN would be NaN. */
void gfviz_backward(const void *logits, int kind, int64_t stride, int64_t width, int64_t k, int64_t first, int64_t last,
                    const int64_t *ids, const float *totals, const float *of_values, const float *of_total,
                    void *gradient) {
    int64_t size = kind == FLOAT32 ? 4 : 2;
    float buffer[STRETCH];
    for (int64_t n = first; n < last; n++) {
        const char *row = (const char *)logits + n * stride * size;
        char *out = (char *)gradient + n * width * size;
        float scale = of_total[n], total = totals[n];
        int plain = isfinite(total);
        for (int64_t start = 0; start < width; start += STRETCH) {
            int64_t count = width - start < STRETCH ? width - start : STRETCH;
            if (scale == 0.0f) {
                memset(out + start * size, 0, (size_t)(count * size));
                continue;
            }
            const float *x = stretch(row, kind, start, count, buffer);
            float *y = kind == FLOAT32 ? (float *)out + start : buffer;
            if (plain) {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) y[i] = scale * softmax_entry(x[i], total);
            } else {
                for (int64_t i = 0; i < count; i++) y[i] = scale * expf(x[i] - total);
            }
            if (kind == BFLOAT16) {
                uint16_t *half = (uint16_t *)out + start;
#pragma omp simd
                for (int64_t i = 0; i < count; i++) half[i] = rounded_half(y[i]);
            }
        }
        for (int64_t j = 0; j < k; j++) {
            int64_t id = ids[n * k + j];
            float one;
            const float *x = stretch(row, kind, id, 1, &one);
            float share = scale == 0.0f ? 0.0f : scale * (plain ? softmax_entry(*x, total) : expf(*x - total));
            share += of_values[n * k + j];
            if (kind == FLOAT32)
                ((float *)out)[id] = share;
            else
                ((uint16_t *)out)[id] = rounded_half(share);
        }
    }
}
