// The crops of a batch, resized and mirrored in one pass; `augmentation.fit_on_device` launches it and says what it
// computes. A thread has a pixel of the result in all channels of a snippet.
//
// `taps` is a table (8, videos, size): for each row of the result the rows above and below and their weights in 2048ths,
// then for each column the columns on its left and right and their weights. `crops` is (videos, 5); its last column says
// what is mirrored. The host defines PIXELS, the threads of a block.

extern "C" __global__ void __launch_bounds__(PIXELS)
fit(const unsigned char *planes, const int *taps, const int *crops, unsigned char *fitted, int videos, int snippets,
    int channels, int size, int video_stride, int snippet_stride, int channel_stride, int row_stride, int column_stride,
    int is_motion) {
    const int place = blockIdx.x * PIXELS + threadIdx.x, video = blockIdx.y, snippet = blockIdx.z, step = videos * size;
    if (place >= size * size) return;
    const int *row = taps + video * size + place / size, *column = taps + 4 * step + video * size + place % size;
    const int above = row[0] * row_stride, below = row[step] * row_stride;
    const int of_above = row[2 * step], of_below = row[3 * step];
    const int left = column[0] * column_stride, right = column[step] * column_stride;
    const int of_left = column[2 * step], of_right = column[3 * step];
    const bool negated = is_motion && crops[5 * video + 4];
    planes += static_cast<long long>(video) * video_stride + static_cast<long long>(snippet) * snippet_stride;
    fitted += (static_cast<long long>(video) * snippets + snippet) * channels * size * size + place;
    for (int channel = 0; channel < channels; ++channel) {
        const int upper = (planes[above + left] * of_left + planes[above + right] * of_right) >> 4;
        const int lower = (planes[below + left] * of_left + planes[below + right] * of_right) >> 4;
        const int value = ((upper * of_above >> 16) + (lower * of_below >> 16) + 2) >> 2;
        *fitted = static_cast<unsigned char>(negated && channel % 2 == 0 ? 256 - max(value, 1) : value);
        planes += channel_stride;
        fitted += size * size;
    }
}
