// The kernels' own source, compiled as C++ against device.hpp.
#include "engine_worker/backend/cuda/kernels/kernels.cu"
