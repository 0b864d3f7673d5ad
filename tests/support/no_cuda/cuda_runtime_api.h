#error "What needs no GPU is built on machines without CUDA's headers, too: it may not include them."
