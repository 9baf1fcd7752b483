// A libnvrtc that compiles kernels for the twin: g++ makes a shared library of the source, and that is the "cubin" (its length before it).
//
// TWIN_DROP, of the form `file:text:n`, plants a fault: occurrence n of that text in that file is left out. TWIN_OPTIONS are more options for g++. The minor
// version says what the twin's sources and these settings are (TWIN_VERSION is the sources'): the host keeps compiled kernels by the compiler's version.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>
#define API extern "C" __attribute__((visibility("default"))) int

struct Program {
    std::string name, source, log, image;
    std::vector<std::pair<std::string, std::string>> headers;
};

API nvrtcVersion(int* major, int* minor) {
    uint32_t hash = 2166136261u;
    for (const char* name : {"TWIN_DROP", "TWIN_OPTIONS"})
        for (const char* text = getenv(name); text && *text; text++) hash = (hash ^ (unsigned char)*text) * 16777619u;
    const bool plain = !getenv("TWIN_DROP") && !getenv("TWIN_OPTIONS");
    return *major = 12, *minor = plain ? TWIN_VERSION : (TWIN_VERSION ^ hash) & 0x3fffffff, 0;
}
API nvrtcGetNumSupportedArchs(int* n) { return *n = 2, 0; }
API nvrtcGetSupportedArchs(int* all) { return all[0] = 80, all[1] = 90, 0; }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int code) { return code == 6 ? "the twin's compiler failed" : "error"; }

API nvrtcCreateProgram(Program** program, const char* source, const char* name, int n, const char* const* headers, const char* const* names) {
    *program = new Program{name, source, "", "", {}};
    for (int i = 0; i < n; i++) (*program)->headers.push_back({names[i], headers[i]});
    return 0;
}
API nvrtcDestroyProgram(Program** program) { return delete *program, *program = nullptr, 0; }

static std::string planted(const std::string& name, std::string source) {
    const char* drop = getenv("TWIN_DROP");
    if (!drop) return source;
    std::string words = drop;
    const size_t first = words.find(':'), last = words.rfind(':');
    if (words.substr(0, first) != name) return source;
    const std::string text = words.substr(first + 1, last - first - 1);
    size_t at = 0;
    for (int n = atoi(words.c_str() + last + 1);; n--) {
        at = source.find(text, at);
        if (at == std::string::npos) return source;
        if (n == 0) return source.erase(at, text.size());
        at += text.size();
    }
}

API nvrtcCompileProgram(Program* program, int n, const char* const* options) {
    namespace fs = std::filesystem;
    std::string directory = (fs::temp_directory_path() / "twin-XXXXXX").string();
    if (!mkdtemp(directory.data())) return 4;
    std::string command = "g++ -std=c++17 -O2 -pthread -fno-strict-aliasing -ffp-contract=off -fvisibility=hidden -shared -fPIC -w ";
#ifdef __x86_64__
    // Thread-local storage by descriptors: found without a call to the loader.
    command += "-mtls-dialect=gnu2 ";
#endif
    if (const char* more = getenv("TWIN_OPTIONS")) command += std::string(more) + " ";
    for (int i = 0; i < n; i++) {
        std::string option = options[i];
        const std::string define = "--define-macro=";
        if (option.rfind(define, 0) == 0) command += "-D" + option.substr(define.size()) + " ";
    }
    for (auto& [name, text] : program->headers) std::ofstream(directory + "/" + name) << planted(name, text);
    std::ofstream(directory + "/kernel.cpp") << "#include \"" TWIN_DEVICE "\"\n#line 1 \"" << program->name << "\"\n"
                                            << planted(program->name, program->source);
    command += "-DTWIN_TENSOR='\"" TWIN_TENSOR "\"' -I" + directory + " -o " + directory + "/kernel.so " + directory + "/kernel.cpp 2>" + directory + "/log";
    const int failed = system(command.c_str());
    auto read = [&](const char* name) {
        std::ifstream file(directory + "/" + name, std::ios::binary);
        std::stringstream text;
        text << file.rdbuf();
        return text.str();
    };
    program->log = read("log");
    const std::string library = failed ? "" : read("kernel.so");
    const uint64_t bytes = library.size();
    program->image = std::string((const char*)&bytes, 8) + library;
    fs::remove_all(directory);
    return failed ? 6 : 0;
}
API nvrtcGetProgramLogSize(Program* program, size_t* bytes) { return *bytes = program->log.size() + 1, 0; }
API nvrtcGetProgramLog(Program* program, char* log) { return strcpy(log, program->log.c_str()), 0; }
API nvrtcGetCUBINSize(Program* program, size_t* bytes) { return *bytes = program->image.size(), 0; }
API nvrtcGetCUBIN(Program* program, char* image) { return memcpy(image, program->image.data(), program->image.size()), 0; }
