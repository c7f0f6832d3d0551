/* Device memory whose addresses outlive its contents: segments of address space that physical memory is mapped to,
 * taken from and mapped to again, at the same addresses.
 *
 * An allocator as torch's CUDAPluggableAllocator calls one (`segments_take`, `segments_give`), and beside it the way to
 * take the memory of a segment (`segments_drop`) and to give it some again (`segments_fill`). All by the virtual memory
 * management of the CUDA Driver API: CUDA C++ Programming Guide, "Virtual Memory Management".
 *
 * Nothing of CUDA is needed to compile this: what of its header is used is declared here, and its library is found when
 * the process runs. Functions that can fail return 0, or the driver's number of the error. Any thread may call them.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

typedef int Result;
typedef unsigned long long Address, Handle;
typedef struct { int type, id; } Location;
typedef struct {
    int type, handle_types;
    Location location;
    void *win32;
    struct { unsigned char compression, rdma; unsigned short usage; unsigned char reserved[4]; } flags;
} Properties;
typedef struct { Location location; int flags; } Access;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2 };
enum { PINNED = 1, ON_DEVICE = 1, READ_WRITE = 3, MINIMUM_GRANULARITY = 0 };

static struct {
    Result (*cuCtxGetCurrent)(void **);
    Result (*cuCtxSetCurrent)(void *);
    Result (*cuDeviceGet)(int *, int);
    Result (*cuDevicePrimaryCtxRetain)(void **, int);
    Result (*cuGetErrorString)(Result, const char **);
    Result (*cuMemAddressFree)(Address, size_t);
    Result (*cuMemAddressReserve)(Address *, size_t, size_t, Address, unsigned long long);
    Result (*cuMemCreate)(Handle *, size_t, const Properties *, unsigned long long);
    Result (*cuMemGetAllocationGranularity)(size_t *, const Properties *, int);
    Result (*cuMemMap)(Address, size_t, size_t, Handle, unsigned long long);
    Result (*cuMemRelease)(Handle);
    Result (*cuMemSetAccess)(Address, size_t, const Access *, size_t);
    Result (*cuMemUnmap)(Address, size_t);
} cuda;

typedef struct Segment {
    struct Segment *next;
    Address base;
    size_t size;
    int device, mapped;
} Segment;

static Segment *segments;
static size_t dropped;
static char said[512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int find(void *library, const char *name, void **function) {
    *function = dlsym(library, name);
    if (!*function) snprintf(said, sizeof said, "NVIDIA's driver has no %s", name);
    return *function != NULL;
}

#define FIND(name) find(library, #name, (void **)&cuda.name)

/* Open the driver's library by its path; 0, or 1 with the reason in `segments_error`. */
int segments_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(said, sizeof said, "%s", dlerror());
        return 1;
    }
    return !(FIND(cuCtxGetCurrent) && FIND(cuCtxSetCurrent) && FIND(cuDeviceGet) && FIND(cuDevicePrimaryCtxRetain) &&
             FIND(cuGetErrorString) && FIND(cuMemAddressFree) && FIND(cuMemAddressReserve) && FIND(cuMemCreate) &&
             FIND(cuMemGetAllocationGranularity) && FIND(cuMemMap) && FIND(cuMemRelease) && FIND(cuMemSetAccess) &&
             FIND(cuMemUnmap));
}

/* Why `segments_open` has failed. */
const char *segments_error(void) { return said; }

/* What a number of the driver's means. */
const char *segments_meaning(Result error) {
    const char *text = NULL;
    if (cuda.cuGetErrorString(error, &text) != SUCCESS || !text) return "an error that the driver has no words for";
    return text;
}

/* A thread that never used the GPU has no context, and the driver refuses it. */
static Result enter(int device) {
    void *context = NULL;
    int handle;
    Result error = cuda.cuCtxGetCurrent(&context);
    if (error || context) return error;
    if ((error = cuda.cuDeviceGet(&handle, device))) return error;
    if ((error = cuda.cuDevicePrimaryCtxRetain(&context, handle))) return error;
    return cuda.cuCtxSetCurrent(context);
}

static Properties properties_on(int device) {
    Properties made = {.type = PINNED, .location = {ON_DEVICE, device}};
    return made;
}

/* Physical memory for a segment. Its handle is released at once: the mapping alone keeps it. */
static Result fill(Segment *segment) {
    Properties properties = properties_on(segment->device);
    Access access = {{ON_DEVICE, segment->device}, READ_WRITE};
    Handle handle;
    Result error = cuda.cuMemCreate(&handle, segment->size, &properties, 0);
    if (error) return error;
    error = cuda.cuMemMap(segment->base, segment->size, 0, handle, 0);
    Result released = cuda.cuMemRelease(handle);
    if (error) return error;
    if ((error = cuda.cuMemSetAccess(segment->base, segment->size, &access, 1)) || (error = released)) {
        cuda.cuMemUnmap(segment->base, segment->size);
        return error;
    }
    segment->mapped = 1;
    return SUCCESS;
}

static Result drop(Segment *segment) {
    Result error = cuda.cuMemUnmap(segment->base, segment->size);
    if (!error) segment->mapped = 0;
    return error;
}

static Result reserve(Segment *segment, size_t bytes) {
    Properties properties = properties_on(segment->device);
    size_t grain;
    Result error = cuda.cuMemGetAllocationGranularity(&grain, &properties, MINIMUM_GRANULARITY);
    if (error) return error;
    segment->size = (bytes + grain - 1) / grain * grain;
    return cuda.cuMemAddressReserve(&segment->base, segment->size, grain, 0, 0);
}

/* New memory, or NULL when there is none. */
void *segments_take(ssize_t bytes, int device, void *stream) {
    (void)stream;
    if (bytes <= 0) return NULL;
    Segment *segment = calloc(1, sizeof *segment);
    if (!segment) return NULL;
    segment->device = device;
    if (enter(device) || reserve(segment, (size_t)bytes)) {
        free(segment);
        return NULL;
    }
    if (fill(segment)) {
        cuda.cuMemAddressFree(segment->base, segment->size);
        free(segment);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    segment->next = segments;
    segments = segment;
    pthread_mutex_unlock(&lock);
    return (void *)(size_t)segment->base;
}

/* Give memory back for good, whether its segment has any now or not. */
void segments_give(void *base, ssize_t bytes, int device, void *stream) {
    (void)bytes, (void)stream;
    enter(device);
    pthread_mutex_lock(&lock);
    Segment **at = &segments;
    while (*at && (*at)->base != (Address)(size_t)base) at = &(*at)->next;
    Segment *segment = *at;
    if (segment) {
        *at = segment->next;
        if (segment->mapped) drop(segment);
        else dropped -= segment->size;
        cuda.cuMemAddressFree(segment->base, segment->size);
        free(segment);
    }
    pthread_mutex_unlock(&lock);
}

static Segment *around(const void *address) {
    Address wanted = (Address)(size_t)address;
    Segment *each = segments;
    while (each && !(each->base <= wanted && wanted - each->base < each->size)) each = each->next;
    return each;
}

/* The first address of the segment that an address is in, and its size; NULL where it is in none. */
void *segments_around(const void *address, size_t *size) {
    pthread_mutex_lock(&lock);
    Segment *segment = around(address);
    void *base = segment ? (void *)(size_t)segment->base : NULL;
    *size = segment ? segment->size : 0;
    pthread_mutex_unlock(&lock);
    return base;
}

/* Let a segment (by any of its addresses) lose its memory (`mapped` 0), or have new memory (1); it may be so already. */
Result segments_map(const void *address, int mapped) {
    Result error = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    Segment *segment = around(address);
    if (segment && segment->mapped == mapped) error = SUCCESS;
    else if (segment && !(error = enter(segment->device)) && !(error = mapped ? fill(segment) : drop(segment)))
        dropped = mapped ? dropped - segment->size : dropped + segment->size;
    pthread_mutex_unlock(&lock);
    return error;
}

/* Bytes of all segments without memory: what torch counts as its own, and the device has. */
size_t segments_dropped(void) {
    pthread_mutex_lock(&lock);
    size_t found = dropped;
    pthread_mutex_unlock(&lock);
    return found;
}
