/* NVIDIA's driver as far as segments need it, on the memory of the host: a handle is a memfd, and what a test wants to
 * fail, fails. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long long Word;
enum { GRAIN = 1 << 16, FAILED = 999, OUT_OF_MEMORY = 2 };

long fake_reserved, fake_created, fake_mapped, fake_contexts;
static char failing[64];
static int failing_after, failing_with;
static void *context;

/* The call `name` fails with `error` after so many good ones. */
void fake_fail(const char *name, int after, int error) {
    strncpy(failing, name, sizeof failing - 1);
    failing_after = after;
    failing_with = error;
}

static int fails(const char *name) {
    return !strcmp(name, failing) && failing_after-- <= 0 ? failing_with : 0;
}

#define MAY_FAIL                            \
    do {                                    \
        int error = fails(__func__);        \
        if (error) return error;            \
    } while (0)

int cuCtxGetCurrent(void **found) { *found = context; return 0; }
int cuCtxSetCurrent(void *wanted) { context = wanted; return 0; }
int cuDeviceGet(int *found, int number) { *found = number; return 0; }
int cuDevicePrimaryCtxRetain(void **found, int device) { (void)device; fake_contexts++; *found = &context; return 0; }
int cuGetErrorString(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : NULL;
    return error == OUT_OF_MEMORY ? 0 : 1;
}
int cuMemGetAllocationGranularity(size_t *grain, const void *properties, int kind) {
    (void)properties, (void)kind;
    MAY_FAIL;
    *grain = GRAIN;
    return 0;
}
int cuMemAddressReserve(Word *base, size_t size, size_t grain, Word fixed, Word flags) {
    (void)fixed, (void)flags;
    MAY_FAIL;
    if (size % GRAIN || grain != GRAIN || !context) return FAILED;
    *base = (Word)mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fake_reserved++;
    return 0;
}
int cuMemAddressFree(Word base, size_t size) { fake_reserved--; return munmap((void *)base, size); }
int cuMemCreate(Word *handle, size_t size, const int *properties, Word flags) {
    (void)flags;
    MAY_FAIL;
    if (properties[0] != 1 || properties[1] != 0 || properties[2] != 1 || properties[3] != 3) return FAILED;
    int file = memfd_create("device memory", 0);
    if (file < 0 || ftruncate(file, (off_t)size)) return OUT_OF_MEMORY;
    *handle = (Word)file;
    fake_created++;
    return 0;
}
int cuMemRelease(Word handle) { MAY_FAIL; fake_created--; return close((int)handle); }
int cuMemMap(Word base, size_t size, size_t offset, Word handle, Word flags) {
    (void)flags;
    MAY_FAIL;
    void *got = mmap((void *)base, size, PROT_NONE, MAP_SHARED | MAP_FIXED, (int)handle, (off_t)offset);
    fake_mapped++;
    return got == (void *)base ? 0 : FAILED;
}
int cuMemSetAccess(Word base, size_t size, const int *access, size_t count) {
    MAY_FAIL;
    if (access[0] != 1 || access[1] != 3 || access[2] != 3 || count != 1) return FAILED;
    return mprotect((void *)base, size, PROT_READ | PROT_WRITE) ? FAILED : 0;
}
int cuMemUnmap(Word base, size_t size) {
    MAY_FAIL;
    mmap((void *)base, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    fake_mapped--;
    return 0;
}
