// Memory that a thread keeps between calls.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace llmos {

// One buffer a thread: fresh memory would cost a page fault for each 4 KiB of it.
class Scratch {
  public:
    ~Scratch() { std::free(data_); }
    template <class T>
    T* get(size_t count) {
        size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        if (bytes > size_) {
            std::free(data_);
            data_ = std::aligned_alloc(64, bytes);
            size_ = data_ ? bytes : 0;
            if (!data_) std::abort();
        }
        return static_cast<T*>(data_);
    }

  private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace llmos
