// Ops as all threads of a team carry them out together: each has its loops shared out, no parallel region of its own,
// and may end before other threads have; what follows needs a barrier.
#pragma once

#include <omp.h>

namespace llmos {

using TeamOp = void (*)(const void* problem);

void linear_by_team(const void* problem);
void attention_by_team(const void* problem);
void norm_by_team(const void* problem);
void gate_by_team(const void* problem);
void rope_by_team(const void* problem);
void lora_shrink_by_team(const void* problem);
void lora_expand_by_team(const void* problem);
void quantized_by_team(const void* problem);

// One op with a team of its own; alone where waking others costs more than they save.
template <class F>
void with_team(int threads, bool worth, F&& f) {
#pragma omp parallel num_threads(threads) if (worth && threads > 1)
    f();
}

}  // namespace llmos
