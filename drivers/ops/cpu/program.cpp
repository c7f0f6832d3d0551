// Several ops one after the other by one team: threads meet at barriers instead of being woken for each op.
#include <cstdint>

#include "team.h"

namespace llmos {
namespace {

constexpr TeamOp OPS[] = {
    linear_by_team, attention_by_team, norm_by_team, gate_by_team, rope_by_team, lora_shrink_by_team,
    lora_expand_by_team, quantized_by_team,
};

// Each op of a program, followed by so many bytes that are its problem; as `native.py` packs it.
struct Head {
    int64_t op, bytes;
};

}  // namespace
}  // namespace llmos

extern "C" void llmos_program(const char* program, int64_t bytes, int64_t threads) {
#pragma omp parallel num_threads(threads)
    for (const char *at = program, *end = program + bytes; at < end;) {
        const auto& head = *(const llmos::Head*)at;
        at += sizeof(llmos::Head);
        llmos::OPS[head.op](at);
        at += head.bytes;
#pragma omp barrier
    }
}
