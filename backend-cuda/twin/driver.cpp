// A libcuda over host memory and kernels that were compiled for the twin.
//
// Each stream is a thread with a queue, so that work on two streams is ordered only by the events between them. Every address, size and handle is checked;
// fresh memory is NaN in every byte, and so is memory that was freed. The seed of a launch, which chooses the order of its threads, is the launch's number
// plus TWIN_SEED. TWIN_DEVICES devices (8) of capability TWIN_CAPABILITY (80), of 4 GiB each.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>
#define API extern "C" __attribute__((visibility("default"))) int

enum { INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719 };

struct Launch { // as in device.h
    unsigned grid[3], threads, shared;
    uint64_t seed;
};

static int setting(const char* name, int otherwise) {
    const char* value = getenv(name);
    return value ? atoi(value) : otherwise;
}
static int devices() {
    static const int n = setting("TWIN_DEVICES", 8);
    return n;
}

struct Stream;
struct Device {
    std::mutex mutex;
    std::map<uintptr_t, size_t> memory;
    size_t used = 0;
    std::vector<Stream*> streams;
    std::atomic<int> failure{0};
};
static Device& device(int index) {
    static Device all[64];
    return all[index];
}
static thread_local Device* current = nullptr;

// A queue and the thread that works it off. After a failure only events go on, so that nobody waits for ever.
struct Stream {
    Device* device;
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::pair<bool, std::function<int()>>> queue;
    uint64_t enqueued = 0, done = 0;
    explicit Stream(Device* device) : device(device) {
        std::thread([this] { work(); }).detach();
    }
    void work() {
        for (;;) {
            std::pair<bool, std::function<int()>> task;
            {
                std::unique_lock<std::mutex> lock(mutex);
                changed.wait(lock, [&] { return !queue.empty(); });
                task = std::move(queue.front());
                queue.pop_front();
            }
            if (task.first || !device->failure)
                if (int code = task.second()) device->failure = code;
            std::lock_guard<std::mutex> lock(mutex);
            done++;
            changed.notify_all();
        }
    }
    int push(std::function<int()> task, bool always = false) {
        std::lock_guard<std::mutex> lock(mutex);
        queue.emplace_back(always, std::move(task));
        enqueued++;
        changed.notify_all();
        return device->failure;
    }
    int drain() {
        std::unique_lock<std::mutex> lock(mutex);
        const uint64_t until = enqueued;
        changed.wait(lock, [&] { return done >= until; });
        return device->failure;
    }
};

struct Event {
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t recorded = 0, passed = 0;
};
typedef std::shared_ptr<Event> Shared; // a stream may still need what was destroyed

static bool inside(Device* device, uintptr_t at, size_t bytes) {
    std::lock_guard<std::mutex> lock(device->mutex);
    auto next = device->memory.upper_bound(at);
    if (next == device->memory.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second;
}
// For the other libraries: whether the memory is some device's.
extern "C" __attribute__((visibility("default"))) bool twin_inside(const void* at, size_t bytes) {
    for (int i = 0; i < devices(); i++)
        if (inside(&device(i), (uintptr_t)at, bytes)) return true;
    return false;
}
// Whether it is a stream; whether it is one of the device whose memory that is.
extern "C" __attribute__((visibility("default"))) bool twin_stream(const void* stream) {
    for (int i = 0; i < devices(); i++) {
        std::lock_guard<std::mutex> lock(device(i).mutex);
        for (const Stream* one : device(i).streams)
            if (one == stream) return true;
    }
    return false;
}
extern "C" __attribute__((visibility("default"))) bool twin_reaches(const void* stream, const void* at, size_t bytes) {
    return inside(((const Stream*)stream)->device, (uintptr_t)at, bytes);
}
extern "C" __attribute__((visibility("default"))) int twin_push(void* stream, std::function<int()>* task) { return ((Stream*)stream)->push(std::move(*task)); }

API cuInit(unsigned) { return devices() ? 0 : 100; }
API cuDriverGetVersion(int* version) { return *version = 12080, 0; }
API cuDeviceGetCount(int* n) { return *n = devices(), 0; }
API cuDeviceGet(int* result, int index) { return index < 0 || index >= devices() ? NO_DEVICE : (*result = index, 0); }
API cuDeviceGetName(char* name, int n, int) { return snprintf(name, n, "CPU twin"), 0; }
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = 4ull << 30, 0; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = setting("TWIN_CAPABILITY", 80);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 16 ? 4 : 0;
    return 0;
}
API cuDeviceGetP2PAttribute(int* value, int attribute, int, int) { return *value = attribute == 2 ? 1 : 0, 0; }
API cuDevicePrimaryCtxRetain(Device** context, int index) { return *context = &device(index), 0; }
API cuCtxSetCurrent(Device* context) { return current = context, 0; }
API cuGetErrorName(int code, const char** text) {
    *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR";
    return 0;
}
API cuGetErrorString(int, const char** text) { return *text = "from the twin", 0; }

API cuStreamCreate(Stream** stream, unsigned) {
    if (!current) return INVALID_CONTEXT;
    *stream = new Stream(current);
    std::lock_guard<std::mutex> lock(current->mutex);
    current->streams.push_back(*stream);
    return 0;
}
API cuStreamSynchronize(Stream* stream) { return stream->drain(); }
API cuEventCreate(Shared** event, unsigned) { return *event = new Shared(new Event), 0; }
API cuEventDestroy_v2(Shared* event) { return delete event, 0; }
API cuEventRecord(Shared* event, Stream* stream) {
    Shared shared = *event;
    uint64_t number;
    {
        std::lock_guard<std::mutex> lock(shared->mutex);
        number = ++shared->recorded;
    }
    return stream->push([shared, number] {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->passed = std::max(shared->passed, number);
        shared->changed.notify_all();
        return 0;
    }, true);
}
API cuStreamWaitEvent(Stream* stream, Shared* event, unsigned) {
    Shared shared = *event;
    uint64_t number;
    {
        std::lock_guard<std::mutex> lock(shared->mutex);
        number = shared->recorded;
    }
    return stream->push([shared, number] {
        std::unique_lock<std::mutex> lock(shared->mutex);
        shared->changed.wait(lock, [&] { return shared->passed >= number; });
        return 0;
    }, true);
}
API cuEventQuery(Shared* event) {
    std::lock_guard<std::mutex> lock((*event)->mutex);
    return (*event)->passed >= (*event)->recorded ? 0 : NOT_READY;
}

API cuMemAlloc_v2(uintptr_t* at, size_t bytes) {
    if (!current) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID;
    std::lock_guard<std::mutex> lock(current->mutex);
    if (current->used + bytes > 4ull << 30) return OUT_OF_MEMORY;
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, 0xff, bytes);
    current->used += bytes;
    current->memory[(uintptr_t)memory] = bytes;
    return *at = (uintptr_t)memory, 0;
}
API cuMemFree_v2(uintptr_t at) {
    if (!current) return INVALID_CONTEXT;
    std::vector<Stream*> streams;
    {
        std::lock_guard<std::mutex> lock(current->mutex);
        if (!current->memory.count(at)) return INVALID;
        streams = current->streams;
    }
    for (Stream* stream : streams) stream->drain();
    std::lock_guard<std::mutex> lock(current->mutex);
    memset((void*)at, 0xff, current->memory[at]);
    current->used -= current->memory[at];
    current->memory.erase(at);
    free((void*)at);
    return 0;
}
API cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, Stream* stream) {
    if (!inside(stream->device, to, bytes)) return INVALID;
    auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    return stream->push([=] { return memcpy((void*)to, staged->data(), bytes), 0; });
}
API cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, Stream* stream) {
    if (!inside(stream->device, from, bytes)) return INVALID;
    return stream->push([=] { return memcpy(to, (void*)from, bytes), 0; });
}
API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, Stream* stream) {
    if (!inside(stream->device, from, bytes) || !inside(stream->device, to, bytes)) return INVALID;
    return stream->push([=] { return memcpy((void*)to, (void*)from, bytes), 0; });
}

typedef const char* (*Kernel)(const Launch*, const void*);
struct Function {
    std::string name;
    Kernel kernel;
    size_t params;
    unsigned allowed = 48 * 1024;
};
API cuModuleLoadData(void** module, const char* image) {
    uint64_t bytes;
    memcpy(&bytes, image, 8);
    const int file = memfd_create("kernel", 0);
    for (uint64_t at = 0; at < bytes;) {
        const ssize_t written = write(file, image + 8 + at, bytes - at);
        if (written <= 0) return OUT_OF_MEMORY;
        at += written;
    }
    *module = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!*module) fprintf(stderr, "twin: %s\n", dlerror());
    // The file stays open: its number is the library's name to the loader, which would take a second one of that name for the first.
    return *module ? 0 : INVALID;
}
API cuModuleGetFunction(Function** function, void* module, const char* name) {
    void* kernel = dlsym(module, (std::string("twin_kernel_") + name).c_str());
    const void* params = dlsym(module, (std::string("twin_params_") + name).c_str());
    if (!kernel || !params) return NOT_FOUND;
    return *function = new Function{name, (Kernel)kernel, *(const size_t*)params}, 0;
}
API cuFuncSetAttribute(Function* function, int attribute, int value) {
    if (attribute != 8 || value > 163 * 1024) return INVALID; // an A100's most
    return function->allowed = value, 0;
}
API cuLaunchKernel(Function* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y, unsigned threads_z, unsigned shared,
                   Stream* stream, void** params, void**) {
    if (!function || !stream) return INVALID_HANDLE;
    if (!x || !y || !z || x > 0x7fffffff || y > 65535 || z > 65535 || !threads || threads > 1024 || threads_y != 1 || threads_z != 1) return INVALID;
    if (shared > function->allowed) return INVALID;
    static std::atomic<uint64_t> launches{(uint64_t)setting("TWIN_SEED", 0)};
    const Launch launch{{x, y, z}, threads, shared, launches++};
    auto copy = std::make_shared<std::vector<char>>((const char*)params[0], (const char*)params[0] + function->params);
    return stream->push([=] {
        const char* fault = function->kernel(&launch, copy->data());
        if (!fault) return 0;
        fprintf(stderr, "twin: %s: %s\n", function->name.c_str(), fault);
        return (int)LAUNCH_FAILED;
    });
}
