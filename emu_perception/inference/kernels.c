/* The loops around the network that NumPy is slow at: resizing an image, and raw outputs of one
 * network to maps. `kernels.py` calls them; where they could not be compiled, NumPy and OpenCV
 * compute the same.
 *
 * Every loop runs along a row, so that compilers turn it into vector instructions. Each function
 * computes the rows from `first` up to `last` of its output and touches no others: rows may be
 * computed by several threads.
 */

#include <stdint.h>
#include <string.h>

#define CHUNK 128 /* pixels of a row that are computed together: all classes fit the L1 cache */
#define MAX_CLASSES 256
#define INLINE static inline __attribute__((always_inline))

/* On x86 each function exists twice; the processor decides. */
#if defined(__x86_64__)
#define WIDE __attribute__((target("avx2,fma")))
#define DISPATCH(name, parameters, arguments)                                                      \
    WIDE static void name##_wide parameters { name##_body arguments; }                             \
    static void name##_plain parameters { name##_body arguments; }                                 \
    void name parameters                                                                           \
    {                                                                                              \
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                       \
            name##_wide arguments;                                                                 \
        else                                                                                       \
            name##_plain arguments;                                                                \
    }
#else
#define DISPATCH(name, parameters, arguments)                                                      \
    void name parameters { name##_body arguments; }
#endif

/* Eight pixels; compilers turn it into the processor's vectors. */
typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
#define LANES 8

INLINE Floats load(const float *values)
{
    Floats found;
    memcpy(&found, values, sizeof found);
    return found;
}

INLINE void store(float *values, Floats given, long count)
{
    memcpy(values, &given, (count < LANES ? count : LANES) * sizeof *values);
}

INLINE Floats choose(Ints condition, Floats yes, Floats no)
{
    return (Floats)((condition & (Ints)yes) | (~condition & (Ints)no));
}

/* exp(x) for x <= 0, to 2e-7 of its value: 2^n times a Taylor series. */
INLINE Floats exp_negative(Floats x)
{
    const float rounder = 12582912.0f; /* 1.5 * 2^23: the sum has no fraction */
    Floats scaled = x * 1.44269504f;
    scaled = choose(scaled > -126.0f, scaled, (Floats){} - 126.0f);
    Floats rounded = scaled + rounder;
    Floats f = (scaled - (rounded - rounder)) * 0.693147181f, f2 = f * f;
    Floats series = 1.0f + f + f2 * (0.5f + f * 0.166666667f +
        f2 * (0.0416666667f + f * 0.00833333333f + f2 * 0.00138888889f));
    return series * (Floats)(((Ints)rounded - 0x4b400000 + 127) << 23);
}

/* ln(1 + x) for 0 <= x <= 1: 2 artanh(x / (2 + x)). */
INLINE Floats log_one_plus(Floats x)
{
    Floats s = x / (2.0f + x), s2 = s * s;
    return 2.0f * s * (1.0f + s2 * (0.333333333f + s2 * (0.2f + s2 * (0.142857143f +
        s2 * (0.111111111f + s2 * (0.0909090909f + s2 * 0.0769230769f))))));
}

/* ln(x) for 1 <= x < 2^22. */
INLINE Floats log_above_one(Floats x)
{
    const float adder = 12582912.0f;
    Ints bits = (Ints)x;
    Floats exponent = (Floats)(((bits >> 23) - 127) + 0x4b400000) - adder;
    Floats mantissa = (Floats)((bits & 0x007fffff) | 0x3f800000);
    return exponent * 0.693147181f + log_one_plus(mantissa - 1.0f);
}

INLINE Floats softplus(Floats x)
{
    Floats positive = choose(x > 0.0f, x, (Floats){});
    return positive + log_one_plus(exp_negative(x - positive - positive));
}

/* The two input rows that an output row lies between, and the weight of the second. */
INLINE float between(long row, long before, long after, long *above, long *below)
{
    double position = ((double)row + 0.5) * (double)before / (double)after - 0.5;
    position = position > 0.0 ? position : 0.0;
    if (position > (double)(before - 1))
        position = (double)(before - 1);
    *above = (long)position;
    *below = *above + 1 < before ? *above + 1 : *above;
    return (float)(position - (double)*above);
}

/* Logits (channels, before, width) to maps (after, width) of softmax over the first `classes`.
 * `confidence` and `entropy` may be NULL. */
INLINE void semantic_rows_body(const float *logits, long classes, long before, long width,
    long after, long first, long last, uint8_t *labels, float *confidence, float *entropy)
{
    float q[MAX_CLASSES][CHUNK];
    for (long row = first; row < last; row++) {
        long above, below;
        float v = between(row, before, after, &above, &below);
        for (long left = 0; left < width; left += CHUNK) {
            long count = width - left < CHUNK ? width - left : CHUNK;
            for (long c = 0; c < classes; c++) {
                const float *restrict upper = logits + (c * before + above) * width + left;
                const float *restrict lower = logits + (c * before + below) * width + left;
                float *restrict values = q[c];
                for (long x = 0; x < count; x++)
                    values[x] = upper[x] + (lower[x] - upper[x]) * v;
            }
            for (long x = 0; x < count; x += LANES) {
                Floats largest = load(&q[0][x]);
                Ints best = {};
                for (int32_t c = 1; c < classes; c++) {
                    Floats value = load(&q[c][x]);
                    Ints greater = value > largest;
                    best = (greater & c) | (~greater & best);
                    largest = choose(greater, value, largest);
                }
                long at = row * width + left + x, some = count - x;
                for (long i = 0; i < LANES && i < some; i++)
                    labels[at + i] = (uint8_t)best[i];
                if (!confidence && !entropy)
                    continue;
                Floats total = {}, expected = {};
                for (int32_t c = 0; c < classes; c++) {
                    Floats difference = load(&q[c][x]) - largest;
                    Floats weight = exp_negative(difference);
                    total += weight;
                    expected += weight * difference;
                }
                Floats inverse = 1.0f / total;
                if (confidence)
                    store(confidence + at, inverse, some);
                if (entropy)
                    store(entropy + at, log_above_one(total) - expected * inverse, some);
            }
        }
    }
}

DISPATCH(semantic_rows,
    (const float *logits, long classes, long before, long width, long after, long first, long last,
        uint8_t *labels, float *confidence, float *entropy),
    (logits, classes, before, width, after, first, last, labels, confidence, entropy))

/* Raw depth (1 or 2, before, width), the second the variance before its activation, to metres and
 * square metres (after, width). `variance` may be NULL. */
INLINE void depth_rows_body(const float *raw, long channels, long before, long width, long after,
    long first, long last, float ratio, float variance_ratio, float relative_std, float minimum,
    float nearest, float farthest, float *depth, float *variance)
{
    for (long row = first; row < last; row++) {
        long above, below;
        float v = between(row, before, after, &above, &below);
        const float *restrict upper = raw + above * width, *restrict lower = raw + below * width;
        float *restrict metres = depth + row * width;
        for (long x = 0; x < width; x++) {
            float value = upper[x] + (lower[x] - upper[x]) * v;
            value = (value > 0.0f ? value : 0.0f) * ratio;
            value = value > nearest ? value : nearest;
            metres[x] = value < farthest ? value : farthest;
        }
        if (!variance)
            continue;
        float *restrict squares = variance + row * width;
        upper += before * width;
        lower += before * width;
        for (long x = 0; x < width; x++) {
            float assumed = metres[x] * relative_std;
            squares[x] = assumed * assumed;
        }
        if (channels < 2)
            continue;
        for (long x = 0; x < width; x += LANES) {
            Floats raws = {}, sum = {};
            long some = width - x < LANES ? width - x : LANES;
            for (long i = 0; i < some; i++) {
                raws[i] = upper[x + i] + (lower[x + i] - upper[x + i]) * v;
                sum[i] = squares[x + i];
            }
            Floats predicted = softplus(raws);
            predicted = choose(predicted > minimum, predicted, (Floats){} + minimum);
            store(squares + x, sum + predicted * variance_ratio, some);
        }
    }
}

DISPATCH(depth_rows,
    (const float *raw, long channels, long before, long width, long after, long first, long last,
        float ratio, float variance_ratio, float relative_std, float minimum, float nearest,
        float farthest, float *depth, float *variance),
    (raw, channels, before, width, after, first, last, ratio, variance_ratio, relative_std, minimum,
        nearest, farthest, depth, variance))

/* An image (height, width, 3) to planes (3, after_height, after_width), by a filter per axis: for
 * each output pixel the first input pixel and `taps` weights. `line` holds 3 * width floats. */
INLINE void resample_rows_body(const uint8_t *image, long width, const int32_t *row_starts,
    const float *row_weights, long row_taps, const int32_t *column_starts,
    const float *column_weights, long column_taps, long after_height, long after_width, long first,
    long last, float *restrict line, float *planes)
{
    long samples = 3 * width;
    for (long row = first; row < last; row++) {
        for (long tap = 0; tap < row_taps; tap++) {
            const uint8_t *restrict source = image + (row_starts[row] + tap) * samples;
            float weight = row_weights[row * row_taps + tap];
            if (tap == 0)
                for (long i = 0; i < samples; i++)
                    line[i] = weight * (float)source[i];
            else if (weight != 0.0f)
                for (long i = 0; i < samples; i++)
                    line[i] += weight * (float)source[i];
        }
        float *red = planes + row * after_width;
        float *green = red + after_height * after_width;
        float *blue = green + after_height * after_width;
        for (long x = 0; x < after_width; x++) {
            const float *source = line + 3 * column_starts[x];
            const float *weights = column_weights + x * column_taps;
            float r = 0.0f, g = 0.0f, b = 0.0f;
            for (long tap = 0; tap < column_taps; tap++) {
                r += weights[tap] * source[3 * tap];
                g += weights[tap] * source[3 * tap + 1];
                b += weights[tap] * source[3 * tap + 2];
            }
            red[x] = r;
            green[x] = g;
            blue[x] = b;
        }
    }
}

DISPATCH(resample_rows,
    (const uint8_t *image, long width, const int32_t *row_starts, const float *row_weights,
        long row_taps, const int32_t *column_starts, const float *column_weights, long column_taps,
        long after_height, long after_width, long first, long last, float *restrict line,
        float *planes),
    (image, width, row_starts, row_weights, row_taps, column_starts, column_weights, column_taps,
        after_height, after_width, first, last, line, planes))
