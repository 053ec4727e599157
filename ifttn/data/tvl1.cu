// TV-L1's steps on a GPU; `tvl1_cuda.py` compiles and launches them, and says what they compute and in which memory.
//
// A block of `relax` holds a tile of 2 * 32 columns and ROWS * WARPS rows on the chip and iterates up to FUSED times
// before it writes. An iteration reads the pixels next to a pixel, so each one spoils one more ring of the tile: a block
// writes only what lies HALO pixels or more from the tile's edge, and the tiles of a pair overlap by twice that.
//
// Planes have `stride` floats a row, an even number; what lies beyond the image's width in a row is 0.
//
// The host defines ROWS, WARPS, FUSED (even), INNER, LIMIT, THETA, RATE, FLAT and ENOUGH.

struct State {             // of a pair
    unsigned long long sums[FUSED]; // squared changes of u of each iteration of the last launch, in units of 1 / UNITS
    int flow, dual;        // which of two buffers holds the field
    int todo, done;        // iterations of the next launch, and since the last median
    int live;              // 0 once an iteration has changed u by little enough
    unsigned arrived;      // blocks of this launch that have ended
};

constexpr int THREADS = 32 * WARPS, WIDE = 64, HIGH = ROWS * WARPS, HALO = FUSED;
constexpr float UNITS = 16777216.f; // fixed-point sums are the same in any order
constexpr unsigned ALL = 0xffffffff;

// The two columns of a lane.
__device__ float2 load(const float *row, int x, bool inside) {
    return inside ? *reinterpret_cast<const float2 *>(row + x) : float2{0.f, 0.f};
}

// True in one thread of a pair's last block, when the sums of all its blocks are there.
__device__ bool last(State &state) {
    __threadfence();
    __syncthreads();
    return threadIdx.x == 0 && atomicAdd(&state.arrived, 1u) == gridDim.x * gridDim.y - 1;
}

// After a launch: go on, or end, or do the launch again from its untouched input with the number that was enough.
__device__ void conclude(State &state, unsigned long long enough) {
    int taken = 0;
    bool ends = false;
    while (taken < state.todo && !ends) ends = atomicAdd(state.sums + taken++, 0ull) <= enough;
    if (ends && taken < state.todo) {
        state.todo = taken;
    } else {
        state.flow ^= 1, state.dual ^= 1, state.done += taken;
        state.live = !ends;
        state.todo = ends ? 0 : min(FUSED, INNER - state.done);
    }
    for (int turn = 0; turn < FUSED; ++turn) state.sums[turn] = 0;
    state.arrived = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
relax(float *flows, float *duals, const float *data, State *states, const int *pairs, int count, int height, int width,
      int stride) {
    extern __shared__ float4 memory[];
    float4(*image)[THREADS] = reinterpret_cast<float4(*)[THREADS]>(memory); // (g_x, g_y, rho_0, 1 / |g|^2) of a pixel
    float4(*first_u)[32] = reinterpret_cast<float4(*)[32]>(memory + 2 * ROWS * THREADS); // (u, u, v, v) of warps' first rows
    float4(*last_p)[32] = first_u + WARPS + 1; // (u_y, u_y, v_y, v_y) of the last row of the warp above
    float(*sums)[WARPS] = reinterpret_cast<float(*)[WARPS]>(last_p + WARPS + 1);

    const int pair = pairs[blockIdx.z], warp = threadIdx.x / 32, lane = threadIdx.x % 32, me = threadIdx.x;
    State &state = states[pair];
    const int todo = state.todo;
    if (todo == 0) return;

    const long long size = static_cast<long long>(height) * stride;
    const int left = blockIdx.x * (WIDE - 2 * HALO) - 2, top = blockIdx.y * (HIGH - 2 * HALO) - 2;
    const int x = left + 2 * lane, y = top + warp * ROWS;
    // A pixel belongs to one tile, whose halo it is not in; beyond an edge of the image there is no halo.
    const int from = blockIdx.x ? left + HALO : 0, to = blockIdx.x + 1 < gridDim.x ? left + WIDE - HALO : width;
    const int start = blockIdx.y ? top + HALO : 0, stop = blockIdx.y + 1 < gridDim.y ? top + HIGH - HALO : height;

    const float *flow = flows + (2ll * state.flow * count + 2 * pair) * size;
    const float *dual = duals + (4ll * state.dual * count + 4 * pair) * size;
    const float *known = data + 3ll * pair * size;
    float u[ROWS][2], v[ROWS][2], ux[ROWS][2], uy[ROWS][2], vx[ROWS][2], vy[ROWS][2];
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const bool inside = x >= 0 && x < width && y + r >= 0 && y + r < height;
        const long long at = static_cast<long long>(y + r) * stride;
        const float2 a = load(known + at, x, inside), b = load(known + size + at, x, inside);
        const float2 c = load(known + 2 * size + at, x, inside);
        const float steep0 = a.x * a.x + b.x * b.x, steep1 = a.y * a.y + b.y * b.y;
        image[2 * r][me] = {a.x, b.x, c.x, steep0 > FLAT ? 1.f / steep0 : 0.f};
        image[2 * r + 1][me] = {a.y, b.y, c.y, steep1 > FLAT ? 1.f / steep1 : 0.f};
        float2 taken = load(flow + at, x, inside);
        u[r][0] = taken.x, u[r][1] = taken.y;
        taken = load(flow + size + at, x, inside);
        v[r][0] = taken.x, v[r][1] = taken.y;
        taken = load(dual + at, x, inside);
        ux[r][0] = taken.x, ux[r][1] = taken.y;
        taken = load(dual + size + at, x, inside);
        uy[r][0] = taken.x, uy[r][1] = taken.y;
        taken = load(dual + 2 * size + at, x, inside);
        vx[r][0] = taken.x, vx[r][1] = taken.y;
        taken = load(dual + 3 * size + at, x, inside);
        vy[r][0] = taken.x, vy[r][1] = taken.y;
    }
    // Where a forward difference would leave the image, p stays 0.
    const float rate_x[2] = {x >= 0 && x < width - 1 ? RATE : 0.f, x >= -1 && x < width - 2 ? RATE : 0.f};
    last_p[warp + 1][lane] = {uy[ROWS - 1][0], uy[ROWS - 1][1], vy[ROWS - 1][0], vy[ROWS - 1][1]};
    if (warp == 0) last_p[0][lane] = first_u[WARPS][lane] = {0.f, 0.f, 0.f, 0.f};
    __syncthreads();

    #pragma unroll 1
    for (int turn = 0; turn < todo; ++turn) {
        float change = 0.f;
        const float4 over = last_p[warp][lane];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const float next_ux = __shfl_up_sync(ALL, ux[r][1], 1), next_vx = __shfl_up_sync(ALL, vx[r][1], 1);
            float row = 0.f;
            #pragma unroll
            for (int c = 0; c < 2; ++c) {
                const float4 g = image[2 * r + c][me];
                const float u_above = r ? uy[r ? r - 1 : 0][c] : c ? over.y : over.x;
                const float v_above = r ? vy[r ? r - 1 : 0][c] : c ? over.w : over.z;
                const float rho = g.z + g.x * u[r][c] + g.y * v[r][c];
                const float step = fminf(fmaxf(-rho * g.w, -LIMIT), LIMIT);
                const float du = step * g.x + THETA * (ux[r][c] - (c ? ux[r][0] : next_ux) + uy[r][c] - u_above);
                const float dv = step * g.y + THETA * (vx[r][c] - (c ? vx[r][0] : next_vx) + vy[r][c] - v_above);
                u[r][c] += du, v[r][c] += dv;
                row += x + c >= from && x + c < to ? du * du + dv * dv : 0.f;
            }
            change += y + r >= start && y + r < stop ? row : 0.f;
        }
        first_u[warp][lane] = {u[0][0], u[0][1], v[0][0], v[0][1]};
        #pragma unroll
        for (int apart = 16; apart; apart /= 2) change += __shfl_down_sync(ALL, change, apart);
        if (lane == 0) sums[turn][warp] = change;
        __syncthreads();
        const float4 under = first_u[warp + 1][lane];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const float next_u = __shfl_down_sync(ALL, u[r][0], 1), next_v = __shfl_down_sync(ALL, v[r][0], 1);
            const float rate_y = y + r >= 0 && y + r < height - 1 ? RATE : 0.f;
            #pragma unroll
            for (int c = 0; c < 2; ++c) {
                const float u_below = r < ROWS - 1 ? u[r < ROWS - 1 ? r + 1 : r][c] : c ? under.y : under.x;
                const float v_below = r < ROWS - 1 ? v[r < ROWS - 1 ? r + 1 : r][c] : c ? under.w : under.z;
                const float u_across = rate_x[c] * ((c ? next_u : u[r][1]) - u[r][c]), u_down = rate_y * (u_below - u[r][c]);
                const float v_across = rate_x[c] * ((c ? next_v : v[r][1]) - v[r][c]), v_down = rate_y * (v_below - v[r][c]);
                const float of_u = 1.f / (1.f + sqrtf(u_across * u_across + u_down * u_down));
                const float of_v = 1.f / (1.f + sqrtf(v_across * v_across + v_down * v_down));
                ux[r][c] = (ux[r][c] + u_across) * of_u, uy[r][c] = (uy[r][c] + u_down) * of_u;
                vx[r][c] = (vx[r][c] + v_across) * of_v, vy[r][c] = (vy[r][c] + v_down) * of_v;
            }
        }
        last_p[warp + 1][lane] = {uy[ROWS - 1][0], uy[ROWS - 1][1], vy[ROWS - 1][0], vy[ROWS - 1][1]};
        __syncthreads();
    }

    float *out = flows + (2ll * (state.flow ^ 1) * count + 2 * pair) * size;
    float *out_dual = duals + (4ll * (state.dual ^ 1) * count + 4 * pair) * size;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (x >= from && x < to && y + r >= start && y + r < stop) {
            const long long at = static_cast<long long>(y + r) * stride + x;
            *reinterpret_cast<float2 *>(out + at) = {u[r][0], u[r][1]};
            *reinterpret_cast<float2 *>(out + size + at) = {v[r][0], v[r][1]};
            *reinterpret_cast<float2 *>(out_dual + at) = {ux[r][0], ux[r][1]};
            *reinterpret_cast<float2 *>(out_dual + size + at) = {uy[r][0], uy[r][1]};
            *reinterpret_cast<float2 *>(out_dual + 2 * size + at) = {vx[r][0], vx[r][1]};
            *reinterpret_cast<float2 *>(out_dual + 3 * size + at) = {vy[r][0], vy[r][1]};
        }
    }
    if (me < todo) {
        float sum = 0.f;
        for (int each = 0; each < WARPS; ++each) sum += sums[me][each];
        atomicAdd(state.sums + me, static_cast<unsigned long long>(sum * UNITS));
    }
    if (last(state)) conclude(state, static_cast<unsigned long long>(static_cast<double>(ENOUGH) * height * width));
}

// Keys 1981 with a = -0.75.
__device__ float cubic(float distance) {
    const float t = fabsf(distance);
    return t < 1.f ? (1.25f * t - 2.25f) * t * t + 1.f : ((-0.75f * t + 3.75f) * t - 6.f) * t + 3.f;
}

// The gradient and the residual of the second image, warped by the flow. Outside the image, the image is 0.
extern "C" __global__ void __launch_bounds__(PIXELS)
linearise(const float *firsts, const float *seconds, const float *flows, float *data, const State *states, int count,
          int height, int width, int stride) {
    const int i = blockIdx.x * PIXELS + threadIdx.x, pair = blockIdx.y;
    if (i >= height * width) return;
    const int x = i % width, y = i / width;
    const long long size = static_cast<long long>(height) * stride, at = static_cast<long long>(y) * stride + x;
    const float *flow = flows + (2ll * states[pair].flow * count + 2 * pair) * size;
    const float *second = seconds + pair * size;
    const float u = flow[at], v = flow[size + at], across = x + u, down = y + v;
    const int left = static_cast<int>(floorf(fminf(fmaxf(across, -4.f), width + 4.f)));
    const int top = static_cast<int>(floorf(fminf(fmaxf(down, -4.f), height + 4.f)));
    float of_row[4], of_column[4], p[6][6];
    int column[6];
    #pragma unroll
    for (int k = 0; k < 4; ++k) {
        const int line = top + k - 1, place = left + k - 1;
        of_row[k] = line >= 0 && line < height ? cubic(down - line) : 0.f;
        of_column[k] = place >= 0 && place < width ? cubic(across - place) : 0.f;
    }
    #pragma unroll
    for (int k = 0; k < 6; ++k) column[k] = min(max(left + k - 2, 0), width - 1); // beyond an edge, its pixels go on
    #pragma unroll
    for (int j = 0; j < 6; ++j) {
        const float *row = second + static_cast<long long>(min(max(top + j - 2, 0), height - 1)) * stride;
        const bool inner = j > 0 && j < 5;
        #pragma unroll
        for (int k = inner ? 0 : 1; k < (inner ? 6 : 5); ++k) p[j][k] = row[column[k]];
    }
    float warped = 0.f, g_x = 0.f, g_y = 0.f;
    #pragma unroll
    for (int j = 1; j < 5; ++j) {
        #pragma unroll
        for (int k = 1; k < 5; ++k) {
            const float weight = of_column[k - 1] * of_row[j - 1];
            warped += weight * p[j][k];
            g_x += weight * 0.5f * (p[j][k + 1] - p[j][k - 1]);
            g_y += weight * 0.5f * (p[j + 1][k] - p[j - 1][k]);
        }
    }
    float *out = data + 3ll * pair * size;
    out[at] = g_x, out[size + at] = g_y, out[2 * size + at] = warped - g_x * u - g_y * v - firsts[pair * size + at];
}

__device__ void sort(float &a, float &b) {
    const float low = fminf(a, b);
    b = fmaxf(a, b), a = low;
}

__device__ void sort(float &a, float &b, float &c, float &d, float &e) {
    sort(a, b), sort(d, e), sort(c, e), sort(c, d), sort(b, e), sort(a, d), sort(a, c), sort(b, d), sort(b, c);
}

// The 5 x 5 median of u and v; the next launch of `relax` begins anew. Beyond an edge, its pixels go on. A thread has
// four pixels of a row, which share sorted columns.
extern "C" __global__ void __launch_bounds__(PIXELS, 3)
median(float *flows, State *states, const int *pairs, int count, int height, int width, int stride) {
    const int fours = (width + 3) / 4, i = blockIdx.x * PIXELS + threadIdx.x, pair = pairs[blockIdx.z];
    State &state = states[pair];
    const int x = i % fours * 4, y = i / fours;
    const long long size = static_cast<long long>(height) * stride;
    const float *flow = flows + (2ll * state.flow * count + 2 * pair) * size;
    float *out = flows + (2ll * (state.flow ^ 1) * count + 2 * pair) * size;
    #pragma unroll 1
    for (int plane = 0; plane < 2 && i < height * fours; ++plane, flow += size, out += size) {
        float column[8][5], found[4];
        #pragma unroll
        for (int c = 0; c < 8; ++c) {
            const int place = min(max(x + c - 2, 0), width - 1);
            #pragma unroll
            for (int r = 0; r < 5; ++r)
                column[c][r] = flow[static_cast<long long>(min(max(y + r - 2, 0), height - 1)) * stride + place];
            sort(column[c][0], column[c][1], column[c][2], column[c][3], column[c][4]);
        }
        #pragma unroll
        for (int k = 0; k < 4; ++k) {
            float m[5][5];
            #pragma unroll
            for (int r = 0; r < 5; ++r) {
                #pragma unroll
                for (int c = 0; c < 5; ++c) m[r][c] = column[k + c][r];
                sort(m[r][0], m[r][1], m[r][2], m[r][3], m[r][4]);
            }
            // Columns and rows are sorted. All 252 ways to cut such a square into low and high say: the median is the
            // middle one of the largest on the diagonal before the longest, the median of that, the smallest on the next.
            const float before = fmaxf(fmaxf(m[3][0], m[2][1]), fmaxf(m[1][2], m[0][3]));
            const float after = fminf(fminf(m[4][1], m[3][2]), fminf(m[2][3], m[1][4]));
            sort(m[4][0], m[3][1], m[2][2], m[1][3], m[0][4]);
            found[k] = fmaxf(fminf(before, m[2][2]), fminf(fmaxf(before, m[2][2]), after));
        }
        // Rows are padded to whole fours.
        *reinterpret_cast<float4 *>(out + static_cast<long long>(y) * stride + x) = {found[0], found[1], found[2], found[3]};
    }
    if (last(state)) state.flow ^= 1, state.todo = min(FUSED, INNER), state.done = 0, state.arrived = 0;
}

// Planes at another size, linear between pixel centres that are `ratio_y` and `ratio_x` apart, times `gain`.
extern "C" __global__ void __launch_bounds__(PIXELS)
resize(const float *planes, float *out, int height, int width, int stride, int new_height, int new_width, int new_stride,
       double ratio_y, double ratio_x, double gain) {
    const int i = blockIdx.x * PIXELS + threadIdx.x;
    if (i >= new_height * new_width) return;
    const double y = fmin(fmax((i / new_width + 0.5) * ratio_y - 0.5, 0.0), height - 1.0);
    const double x = fmin(fmax((i % new_width + 0.5) * ratio_x - 0.5, 0.0), width - 1.0);
    const int top = static_cast<int>(y), left = static_cast<int>(x);
    const int below = min(top + 1, height - 1), right = min(left + 1, width - 1);
    const float down = static_cast<float>(y - top), across = static_cast<float>(x - left);
    const float *plane = planes + blockIdx.y * static_cast<long long>(height) * stride;
    const auto pixel = [&](int line, int place) { return plane[static_cast<long long>(line) * stride + place]; };
    const float near = pixel(top, left) + down * (pixel(below, left) - pixel(top, left));
    const float far = pixel(top, right) + down * (pixel(below, right) - pixel(top, right));
    out[(blockIdx.y * static_cast<long long>(new_height) + i / new_width) * new_stride + i % new_width] =
        static_cast<float>(gain) * (near + across * (far - near));
}
