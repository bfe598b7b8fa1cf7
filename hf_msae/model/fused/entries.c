/* The positive entries of a few rows of a code: ranked, decoded, and their gradients. Compiled at its first use, by
 * compiler.py; called by compiled_entries.py, which says what the arguments are.
 *
 * A dictionary comes in slices: its columns in blocks of W, (n, W) each, zeros after the last. The rows of a slice are
 * looked up in random order and stay in one core's cache. They hold floats of 4 bytes, or bfloat16 of 2 in pairs: a
 * word has a number for lane j of a vector in its lower half, and one for lane j of the next vector in its upper half.
 * Sums are of floats in either case.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

/* As many floats as two registers of AVX2 or one of AVX-512 hold. */
#ifndef LANES
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#endif
#define BUCKETS 2048
#define MOST_COLUMNS 128 /* of a slice */

#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffffu; /* without the sign, which zeros and NaN may have */
}

/* The nearest bfloat16, ties to even, in the upper half; what is in the lower one has no meaning. */
static inline uint32_t bfloat16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000 : rounded; /* NaN: rounding might make it infinite */
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Orders columns by their entries, largest first, equal ones by ascending column; NaN comes before all numbers. */
static void sort_columns(const float *row, int32_t *columns, int64_t count, uint64_t *keys) {
    for (int64_t i = 0; i < count; i++)
        keys[i] = (uint64_t)(0xffffffffu - bits_of(row[columns[i]])) << 32 | (uint32_t)columns[i];
    if (count > 48) {
        qsort(keys, count, sizeof *keys, ascending);
    } else {
        for (int64_t i = 1; i < count; i++) {
            uint64_t key = keys[i];
            int64_t place = i;
            for (; place && keys[place - 1] > key; place--) keys[place] = keys[place - 1];
            keys[place] = key;
        }
    }
    for (int64_t i = 0; i < count; i++) columns[i] = (int32_t)keys[i];
}

/* The columns of each row's positive entries, so that for every border k the first k of them are the row's top k (ties
 * to the lower column). Between borders they are in no particular order: finding what a level holds takes no sorting.
 * Entries are thrown into buckets of equal width, and only a bucket that a border parts is sorted. */
static void rank_row(const float *code, int64_t n, const int64_t *borders, int64_t levels, int32_t *size,
                     int32_t *columns, int32_t *positive, uint16_t *buckets, uint64_t *keys) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(code[i]);
        largest = bits > largest ? bits : largest;
    }
    float most;
    memcpy(&most, &largest, sizeof most);
    int numbers = largest < 0x7f800000u && most > 1e-30f; /* neither infinite, NaN, nor too small to divide by */
    float scale = numbers ? (BUCKETS - 1) / most : 0;
    if (numbers)
        for (int64_t i = 0; i < n; i++) {
            int32_t bucket = BUCKETS - 1 - (int32_t)(code[i] * scale);
            buckets[i] = (uint16_t)(bucket < 0 ? 0 : bucket);
        }
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        positive[count] = (int32_t)i;
        count += bits_of(code[i]) != 0;
    }
    *size = (int32_t)count;
    if (!numbers) {
        memcpy(columns, positive, count * sizeof *columns);
        sort_columns(code, columns, count, keys);
        return;
    }
    int32_t ends[BUCKETS + 1] = {0}; /* first how many, then where they begin, then where they end */
    for (int64_t i = 0; i < count; i++) ends[buckets[positive[i]] + 1]++;
    for (int64_t b = 1; b <= BUCKETS; b++) ends[b] += ends[b - 1];
    for (int64_t i = 0; i < count; i++) columns[ends[buckets[positive[i]]]++] = positive[i];
    for (int64_t level = 0; level < levels; level++) {
        if (borders[level] >= count) continue;
        int64_t bucket = buckets[columns[borders[level]]];
        int64_t begin = bucket ? ends[bucket - 1] : 0;
        if (borders[level] > begin) sort_columns(code, columns + begin, ends[bucket] - begin, keys);
    }
}

/* How many positive entries each row has, and their columns as above, from ranked (rows, n). */
int rank_rows(int64_t threads, const float *code, int64_t rows, int64_t n, const int64_t *borders, int64_t levels,
              int32_t *counts, int32_t *ranked) {
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        int32_t *positive = malloc(n * sizeof *positive);
        uint16_t *buckets = malloc(n * sizeof *buckets);
        uint64_t *keys = malloc(n * sizeof *keys);
        failed = !positive || !buckets || !keys;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (!failed)
                rank_row(code + r * n, n, borders, levels, counts + r, ranked + r * n, positive, buckets, keys);
        }
        free(positive);
        free(buckets);
        free(keys);
    }
    return failed;
}

/* Moves what is ranked together, row after row as firsts (rows + 1) says, with what latents holds there. */
void pack_rows(int64_t threads, const float *latents, int64_t rows, int64_t n, const int64_t *firsts,
               const int32_t *ranked, int32_t *columns, float *values) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = firsts[r]; e < firsts[r + 1]; e++) {
            columns[e] = ranked[r * n + e - firsts[r]];
            values[e] = latents[r * n + columns[e]];
        }
}

/* Adds a row of a slice times value to the sums of its W columns. */
INLINE void add_row(int W, int bytes, lanes *sum, const void *row, float value) {
    if (bytes == 4) {
        for (int j = 0; j < W / LANES; j++) sum[j] += ((const lanes *)row)[j] * value;
    } else {
        for (int j = 0; j < W / LANES; j += 2) {
            words pair = ((const words *)row)[j / 2];
            sum[j] += (lanes)(pair << 16) * value;
            sum[j + 1] += (lanes)(pair & 0xffff0000u) * value;
        }
    }
}

/* Copies the columns of a slice, of which the last one may have fewer than W. */
INLINE void copy_columns(int W, void *to, const void *from, int64_t width) {
    if (width == W)
        memcpy(to, from, W * sizeof(float)); /* no call, since the size is known */
    else
        memcpy(to, from, width * sizeof(float));
}

/* One slice of the running sums over a row's rings: out[ring][row] = sum of values * table over the entries of the
 * rings up to it, plus what is there if there is something to add to. starts: (rows, rings + 1), where each ring of a
 * row begins and the last one ends. */
INLINE void decode_slice(int W, int bytes, const char *table, const int32_t *columns, const float *values,
                         const int64_t *starts, int64_t rows, int64_t rings, int64_t add, float *out, int64_t d,
                         int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        lanes sum[MOST_COLUMNS / LANES] = {0};
        if (add) copy_columns(W, sum, out + r * d, width);
        const int64_t *ends = starts + r * (rings + 1);
        for (int64_t ring = 0; ring < rings; ring++) {
            for (int64_t e = ends[ring]; e < ends[ring + 1]; e++)
                add_row(W, bytes, sum, table + (int64_t)columns[e] * W * bytes, values[e]);
            copy_columns(W, out + (ring * rows + r) * d, sum, width);
        }
    }
}

#define PAIRS(a, b, ...) (__builtin_shufflevector(a, b, __VA_ARGS__))

/* The sum of each of LANES vectors: halves of two are added side by side, again and again. */
#if LANES == 16
INLINE lanes summed(const lanes *v) {
    lanes a[8], b[4], c[2];
    for (int i = 0; i < 8; i++)
        a[i] = PAIRS(v[i], v[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               PAIRS(v[i], v[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        b[i] = PAIRS(a[i], a[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               PAIRS(a[i], a[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        c[i] = PAIRS(b[i], b[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               PAIRS(b[i], b[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return PAIRS(c[0], c[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           PAIRS(c[0], c[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
#else
INLINE lanes summed(const lanes *v) {
    lanes a[4], b[2];
    for (int i = 0; i < 4; i++)
        a[i] = PAIRS(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11) + PAIRS(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    for (int i = 0; i < 2; i++)
        b[i] = PAIRS(a[i], a[i + 2], 0, 1, 8, 9, 4, 5, 12, 13) + PAIRS(a[i], a[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    return PAIRS(b[0], b[1], 0, 8, 2, 10, 4, 12, 6, 14) + PAIRS(b[0], b[1], 1, 9, 3, 11, 5, 13, 7, 15);
}
#endif

/* The product of two rows of slices, in parts that add up to it. */
INLINE lanes product_in_lanes(int W, int bytes, const void *row, const void *other) {
    lanes sum = {0};
    if (bytes == 4) {
        for (int j = 0; j < W / LANES; j++) sum += ((const lanes *)row)[j] * ((const lanes *)other)[j];
        return sum;
    }
    for (int j = 0; j < W / LANES / 2; j++) {
        words left = ((const words *)row)[j], right = ((const words *)other)[j];
#if defined(__AVX512BF16__) && LANES == 16
        sum = (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
#else
        sum += (lanes)(left << 16) * (lanes)(right << 16);
        sum += (lanes)(left & 0xffff0000u) * (lanes)(right & 0xffff0000u);
#endif
    }
    return sum;
}

/* The products of some rows of a table, at most LANES, with another row. */
INLINE lanes products_with(int W, int bytes, const char *table, const int32_t *columns, int some, const void *other) {
    const lanes zeros = {0};
    lanes sums[LANES];
#pragma GCC unroll 16 /* else the sums are in memory */
    for (int i = 0; i < LANES; i++)
        sums[i] = i < some ? product_in_lanes(W, bytes, table + (int64_t)columns[i] * W * bytes, other) : zeros;
    return summed(sums);
}

/* Adds one slice's share of <table row, right[row][ring]> to products, at every entry. */
INLINE void products_of_slice(int W, int bytes, const char *table, const int32_t *columns, float *products,
                              const int64_t *starts, int64_t begin, int64_t end, int64_t rings, const char *right) {
    for (int64_t r = begin; r < end; r++) {
        const int64_t *ends = starts + r * (rings + 1);
        for (int64_t ring = 0; ring < rings; ring++) {
            const void *other = right + (r * rings + ring) * W * bytes;
            int64_t e = ends[ring];
            for (; e + LANES <= ends[ring + 1]; e += LANES)
                *(lanes *)(products + e) += products_with(W, bytes, table, columns + e, LANES, other);
            int rest = (int)(ends[ring + 1] - e);
            if (!rest) continue;
            lanes last = products_with(W, bytes, table, columns + e, rest, other);
            for (int i = 0; i < rest; i++) products[e + i] += last[i];
        }
    }
}

/* Each width and type that `slice_width` chooses has a function of its own, in which they are constants. */
#define DISPATCH(function, W, bytes, ...)                                                                             \
    do {                                                                                                              \
        if (bytes == 4 && W == 64) function(64, 4, __VA_ARGS__);                                                      \
        if (bytes == 4 && W == 32) function(32, 4, __VA_ARGS__);                                                      \
        if (bytes == 4 && W == 16) function(16, 4, __VA_ARGS__);                                                      \
        if (bytes == 2 && W == 128) function(128, 2, __VA_ARGS__);                                                    \
        if (bytes == 2 && W == 64) function(64, 2, __VA_ARGS__);                                                      \
        if (bytes == 2 && W == 32) function(32, 2, __VA_ARGS__);                                                      \
    } while (0)

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Bytes of a core's own cache, or 0 if the system does not say. */
int64_t cache_bytes(void) {
#ifdef _SC_LEVEL2_CACHE_SIZE
    return sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
    return 0;
#endif
}

/* Rounds a table (rings, rows, d) to bfloat16 and writes it in slices (slices, rows, rings, W). */
void pair_columns(int64_t threads, int64_t W, const float *table, int64_t rings, int64_t rows, int64_t d,
                  uint32_t *out) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t ring = 0; ring < rings; ring++)
            for (int64_t first = 0; first < d; first += W) {
                float block[MOST_COLUMNS] = {0};
                memcpy(block, table + (ring * rows + r) * d + first, least(W, d - first) * sizeof *block);
                uint32_t *pairs = out + ((first / W * rows + r) * rings + ring) * (W / 2);
                for (int64_t j = 0; j < W; j += 2 * LANES)
                    for (int64_t i = 0; i < LANES; i++)
                        pairs[j / 2 + i] = bfloat16_of(block[j + i]) >> 16 |
                                           (bfloat16_of(block[j + LANES + i]) & 0xffff0000u);
            }
}

void decode(int64_t threads, int64_t W, int64_t bytes, const char *table, int64_t n, int64_t d, const int32_t *columns,
            const float *values, const int64_t *starts, int64_t rows, int64_t rings, int64_t add, float *out) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t first = 0; first < d; first += W)
        DISPATCH(decode_slice, W, bytes, table + first * n * bytes, columns, values, starts, rows, rings, add,
                 out + first, d, least(W, d - first));
}

/* Adds <row of the dictionary, right[row][ring]> to out[row] at the column of every entry; right is in slices too. The
 * slices are shared out among parts, each of which has its own sums, scratch being (parts, entries); rows are, among
 * the threads of a part. */
void add_products(int64_t threads, int64_t W, int64_t bytes, const char *table, int64_t n, int64_t d,
                  const int32_t *columns, float *scratch, const int64_t *starts, int64_t rows, int64_t rings,
                  const char *right, float *out, int64_t parts) {
    int64_t entries = starts[rows * (rings + 1) - 1];
    int64_t blocks = (threads + parts - 1) / parts, step = (rows + blocks - 1) / blocks;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t piece = 0; piece < parts * blocks; piece++) {
        int64_t part = piece % parts, begin = least(piece / parts * step, rows), end = least(begin + step, rows);
        if (begin == end) continue;
        float *sums = scratch + part * entries;
        int64_t from = starts[begin * (rings + 1)], to = starts[(end - 1) * (rings + 1) + rings];
        if (from == to) continue;
        memset(sums + from, 0, (to - from) * sizeof *sums);
        for (int64_t first = part * W; first < d; first += parts * W)
            DISPATCH(products_of_slice, W, bytes, table + first * n * bytes, columns, sums, starts, begin, end, rings,
                     right + first * rows * rings * bytes);
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = starts[r * (rings + 1)]; e < starts[r * (rings + 1) + rings]; e++) {
            float sum = scratch[e];
            for (int64_t part = 1; part < parts; part++) sum += scratch[part * entries + e];
            out[r * n + columns[e]] += sum;
        }
}

/* The entries of the rings column by column, in the order of row and ring: where each is, row * rings + ring, and its
 * value. spans: (n, 2), where each column begins and ends. */
int turn_entries(int64_t threads, int64_t n, const int32_t *columns, const float *values, const int64_t *starts,
                 int64_t rows, int64_t rings, int32_t *places, float *turned, int64_t *spans) {
    int64_t step = (rows + threads - 1) / threads;
    int64_t *next = calloc(threads * n, sizeof *next); /* how many of a column a thread has, then where they go */
    if (!next) return 1;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; t++)
        for (int64_t r = t * step; r < least(rows, (t + 1) * step); r++)
            for (int64_t e = starts[r * (rings + 1)]; e < starts[r * (rings + 1) + rings]; e++)
                next[t * n + columns[e]]++;
    int64_t total = 0;
    for (int64_t c = 0; c < n; c++) {
        spans[2 * c] = total;
        for (int64_t t = 0; t < threads; t++) {
            int64_t number = next[t * n + c];
            next[t * n + c] = total;
            total += number;
        }
        spans[2 * c + 1] = total;
    }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; t++)
        for (int64_t r = t * step; r < least(rows, (t + 1) * step); r++)
            for (int64_t ring = 0; ring < rings; ring++)
                for (int64_t e = starts[r * (rings + 1) + ring]; e < starts[r * (rings + 1) + ring + 1]; e++) {
                    int64_t place = next[t * n + columns[e]]++;
                    places[place] = (int32_t)(r * rings + ring);
                    turned[place] = values[e];
                }
    free(next);
    return 0;
}

/* Adds the values of all entries of the rings to their columns of out[row]. */
void add_entries(int64_t threads, int64_t n, const int32_t *columns, const float *values, const int64_t *starts,
                 int64_t rows, int64_t rings, float *out) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = starts[r * (rings + 1)]; e < starts[r * (rings + 1) + rings]; e++)
            out[r * n + columns[e]] += values[e];
}
