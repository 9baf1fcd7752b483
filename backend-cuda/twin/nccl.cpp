// A libnccl for ranks that are threads of one process, on the streams of the twin's driver.
//
// Every collective is compared on all ranks: operation, type, length, root. Sums are in fp32 in the order of the ranks. Addresses must be device memory. A
// communicator that is aborted lets what waits in it go with an error that is kept, as NCCL does. TWIN_NCCL_FAIL, of the form `rank:n`, makes the n-th operation
// of that rank of every communicator fail behind the call.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "numbers.h"
#define API extern "C" __attribute__((visibility("default"))) int

extern "C" bool twin_inside(const void* at, size_t bytes);
extern "C" int twin_push(void* stream, std::function<int()>* task);

enum { SYSTEM = 2, INTERNAL = 3, ARGUMENT = 4, USAGE = 5, REMOTE = 6 };
enum Operation { JOIN, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };

struct Id {
    char bytes[128];
};
struct Call {
    Operation operation;
    const void* from;
    void* to;
    size_t count;
    int type, root;
};
struct World {
    int ranks;
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Call> calls;
    int arrived = 0, error = 0;
    uint64_t meeting = 0;
    std::vector<char> aborted; // by rank: the others wait on, as NCCL's do, until they are aborted themselves
    std::map<std::pair<int, int>, std::deque<std::vector<char>>> mail;
};
struct Communicator {
    std::shared_ptr<World> world;
    int rank;
    std::shared_ptr<int> error = std::make_shared<int>(0); // behind the calls
    int operations = 0;
};

static size_t size_of(int type) { return type == 6 || type == 9 ? 2 : type == 7 || type == 3 ? 4 : 0; }
typedef Numbers<7, 6> Float;

// All ranks are here: the data move.
static void perform(World& world) {
    const Call call = world.calls[0];
    for (const Call& other : world.calls)
        if (other.operation != call.operation || other.count != call.count || other.type != call.type || other.root != call.root) {
            world.error = USAGE;
            return;
        }
    const size_t n = world.ranks, bytes = size_of(call.type);
    if (call.operation == ALL_REDUCE || call.operation == REDUCE_SCATTER) {
        const size_t total = call.operation == ALL_REDUCE ? call.count : call.count * n;
        std::vector<float> sums(total, 0.f);
        for (const Call& one : world.calls)
            for (size_t i = 0; i < total; i++) sums[i] += Float::load(one.from, call.type, i);
        for (size_t rank = 0; rank < n; rank++)
            for (size_t i = 0; i < call.count; i++)
                Float::store(world.calls[rank].to, call.type, i, sums[call.operation == ALL_REDUCE ? i : rank * call.count + i]);
    } else if (call.operation == ALL_GATHER) {
        std::vector<char> all;
        for (const Call& one : world.calls) all.insert(all.end(), (const char*)one.from, (const char*)one.from + call.count * bytes);
        for (const Call& one : world.calls) memcpy(one.to, all.data(), all.size());
    } else if (call.operation == BROADCAST) {
        std::vector<char> data((const char*)world.calls[call.root].from, (const char*)world.calls[call.root].from + call.count * bytes);
        for (const Call& one : world.calls) memcpy(one.to, data.data(), data.size());
    }
}
static int meet(World& world, int rank, const Call& call) {
    std::unique_lock<std::mutex> lock(world.mutex);
    world.calls[rank] = call;
    const uint64_t meeting = world.meeting;
    if (++world.arrived == world.ranks) {
        perform(world);
        world.arrived = 0;
        world.meeting++;
        world.changed.notify_all();
        return world.error;
    }
    world.changed.wait(lock, [&] { return world.meeting != meeting || world.aborted[rank]; });
    return world.meeting != meeting ? world.error : REMOTE;
}

API ncclGetVersion(int* version) { return *version = 22000, 0; }
extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(int code) {
    return code == USAGE ? "invalid usage" : code == REMOTE ? "remote process exited or there was a network error" : code == ARGUMENT ? "invalid argument" : "internal error";
}
static std::mutex registry;
static std::map<std::string, std::shared_ptr<World>> worlds;
API ncclGetUniqueId(Id* id) {
    static int next = 0;
    std::lock_guard<std::mutex> lock(registry);
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "world %d", next++);
    return 0;
}
API ncclCommInitRank(Communicator** result, int ranks, Id id, int rank) {
    if (rank < 0 || rank >= ranks) return ARGUMENT;
    std::shared_ptr<World> world;
    {
        std::lock_guard<std::mutex> lock(registry);
        auto& known = worlds[std::string(id.bytes)];
        if (!known) known = std::make_shared<World>(), known->ranks = ranks, known->calls.resize(ranks), known->aborted.resize(ranks);
        world = known;
    }
    if (world->ranks != ranks) return ARGUMENT;
    *result = new Communicator{world, rank};
    return meet(*world, rank, {JOIN, nullptr, nullptr, 0, 7, 0});
}
API ncclCommDestroy(Communicator* c) { return delete c, 0; }
API ncclCommAbort(Communicator* c) {
    {
        std::lock_guard<std::mutex> lock(c->world->mutex);
        c->world->aborted[c->rank] = true;
        c->world->changed.notify_all();
    }
    return delete c, 0;
}
API ncclCommGetAsyncError(Communicator* c, int* error) { return *error = __atomic_load_n(c->error.get(), __ATOMIC_ACQUIRE), 0; }

// Work on a stream. An error stays with the communicator; the stream goes on, as after an abort.
static int enqueue(Communicator* c, void* stream, std::function<int(World&, int)> work) {
    auto world = c->world;
    auto error = c->error;
    const int rank = c->rank, number = c->operations++;
    const char* fail = getenv("TWIN_NCCL_FAIL");
    const bool broken = fail && std::to_string(rank) + ":" + std::to_string(number) == fail;
    std::function<int()> task = [=] {
        const int code = broken ? SYSTEM : work(*world, rank);
        if (code) {
            __atomic_store_n(error.get(), code, __ATOMIC_RELEASE);
            // The operation never ends, until somebody aborts.
            std::unique_lock<std::mutex> lock(world->mutex);
            world->changed.wait(lock, [&] { return world->aborted[rank]; });
        }
        return 0;
    };
    return twin_push(stream, &task) ? INTERNAL : 0;
}
static int collective(Communicator* c, void* stream, Call call, size_t in, size_t out) {
    if (!c || !size_of(call.type) || !twin_inside(call.from, in * size_of(call.type)) || !twin_inside(call.to, out * size_of(call.type))) return ARGUMENT;
    return enqueue(c, stream, [call](World& world, int rank) { return meet(world, rank, call); });
}
API ncclAllReduce(const void* from, void* to, size_t n, int type, int operation, Communicator* c, void* stream) {
    return operation != 0 ? ARGUMENT : collective(c, stream, {ALL_REDUCE, from, to, n, type, 0}, n, n);
}
API ncclReduceScatter(const void* from, void* to, size_t n, int type, int operation, Communicator* c, void* stream) {
    return operation != 0 ? ARGUMENT : collective(c, stream, {REDUCE_SCATTER, from, to, n, type, 0}, n * c->world->ranks, n);
}
API ncclAllGather(const void* from, void* to, size_t n, int type, Communicator* c, void* stream) {
    return collective(c, stream, {ALL_GATHER, from, to, n, type, 0}, n, n * c->world->ranks);
}
API ncclBroadcast(const void* from, void* to, size_t n, int type, int root, Communicator* c, void* stream) {
    return root < 0 || root >= c->world->ranks ? ARGUMENT : collective(c, stream, {BROADCAST, from, to, n, type, root}, n, n);
}

// Sends and receives of a group are one piece of work: all sends, then all receives.
struct Message {
    bool send;
    void* at;
    size_t bytes;
    int peer;
};
struct Grouped {
    Communicator* communicator;
    void* stream;
    std::vector<Message> messages;
};
static thread_local int depth = 0;
static thread_local std::vector<Grouped> grouped;
static int flush() {
    int result = 0;
    for (auto& group : grouped) {
        auto messages = group.messages;
        const int code = enqueue(group.communicator, group.stream, [messages](World& world, int rank) {
            std::unique_lock<std::mutex> lock(world.mutex);
            for (auto& message : messages)
                if (message.send) world.mail[{rank, message.peer}].emplace_back((char*)message.at, (char*)message.at + message.bytes);
            world.changed.notify_all();
            for (auto& message : messages) {
                if (message.send) continue;
                auto& queue = world.mail[{message.peer, rank}];
                world.changed.wait(lock, [&] { return !queue.empty() || world.aborted[rank]; });
                if (queue.empty()) return (int)REMOTE;
                if (queue.front().size() != message.bytes) return (int)USAGE;
                memcpy(message.at, queue.front().data(), message.bytes);
                queue.pop_front();
            }
            world.changed.notify_all();
            // A send is done when it has been received.
            for (auto& message : messages)
                if (message.send) world.changed.wait(lock, [&] { return world.mail[{rank, message.peer}].empty() || world.aborted[rank]; });
            return 0;
        });
        if (code) result = code;
    }
    grouped.clear();
    return result;
}
static int message(Communicator* c, void* stream, Message message, int type) {
    if (!c || !size_of(type) || message.peer < 0 || message.peer >= c->world->ranks || !twin_inside(message.at, message.bytes)) return ARGUMENT;
    if (grouped.empty() || grouped.back().communicator != c || grouped.back().stream != stream) grouped.push_back({c, stream, {}});
    grouped.back().messages.push_back(message);
    return depth ? 0 : flush();
}
API ncclGroupStart() { return depth++, 0; }
API ncclGroupEnd() { return --depth ? 0 : flush(); }
API ncclSend(const void* at, size_t n, int type, int peer, Communicator* c, void* stream) {
    return message(c, stream, {true, (void*)at, n * size_of(type), peer}, type);
}
API ncclRecv(void* at, size_t n, int type, int peer, Communicator* c, void* stream) { return message(c, stream, {false, at, n * size_of(type), peer}, type); }
