/* A stand-in for NVIDIA's management library, for the calls that our probe makes through pynvml.
 *
 * What it says comes from the environment:
 *   FAKE_NVML_COUNT     GPUs, 1 if unset
 *   FAKE_NVML_TOTAL     bytes of each
 *   FAKE_NVML_FREE      of that, free
 *   FAKE_NVML_NAME      name of each
 *   FAKE_NVML_DRIVER    driver version
 *   FAKE_NVML_CAPABILITY  compute capability, such as 8.6
 *   FAKE_NVML_FAIL      name of a call that fails, and
 *   FAKE_NVML_ERROR     the code that it fails with (18 is a driver mismatch, 999 unknown)
 *   FAKE_NVML_BAD_GPU   index of a GPU that has fallen off the bus
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;

static char devices[64];

static unsigned long long number(const char *name, unsigned long long otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static nvmlReturn_t copy(const char *name, const char *otherwise, char *out, unsigned size) {
    const char *text = getenv(name);
    snprintf(out, size, "%s", text ? text : otherwise);
    return 0;
}

static nvmlReturn_t outcome(const char *call) {
    const char *failing = getenv("FAKE_NVML_FAIL");
    return failing && strcmp(failing, call) == 0 ? (nvmlReturn_t)number("FAKE_NVML_ERROR", 999) : 0;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; return outcome("init"); }
nvmlReturn_t nvmlShutdown(void) { return 0; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned size) {
    nvmlReturn_t result = outcome("driver");
    return result ? result : copy("FAKE_NVML_DRIVER", "550.54.14", out, size);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)number("FAKE_NVML_COUNT", 1);
    return outcome("count");
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index >= number("FAKE_NVML_COUNT", 1)) return 2;
    if (index == number("FAKE_NVML_BAD_GPU", 9999)) return 15;
    *handle = &devices[index];
    return outcome("handle");
}

nvmlReturn_t nvmlDeviceGetName(void *handle, char *out, unsigned size) {
    (void)handle;
    nvmlReturn_t result = outcome("name");
    return result ? result : copy("FAKE_NVML_NAME", "NVIDIA Fake 4060", out, size);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(void *handle, nvmlMemory_t *memory) {
    (void)handle;
    memory->total = number("FAKE_NVML_TOTAL", 8ULL << 30);
    memory->free = number("FAKE_NVML_FREE", memory->total);
    memory->used = memory->total - memory->free;
    return outcome("memory");
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    (void)handle;
    const char *text = getenv("FAKE_NVML_CAPABILITY");
    if (sscanf(text ? text : "8.9", "%d.%d", major, minor) != 2) return 999;
    return outcome("capability");
}

const char *nvmlErrorString(nvmlReturn_t result) { (void)result; return "a failure of the fake"; }
