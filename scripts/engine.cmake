# Included after each project() of llama-cpp-python's source (CMAKE_PROJECT_INCLUDE).
#
# Leave out llama.cpp's `common` library. The binding forces its cache variable on, but neither the
# Python package nor libllama uses it; a normal variable hides a cache variable of the same name.
# Measured on two cores, together with LLAVA_BUILD=OFF: 130 s instead of 289 s.
set(LLAMA_BUILD_COMMON OFF)
