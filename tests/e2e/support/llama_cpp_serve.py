"""Runs llama.cpp's HTTP server until SIGTERM: MODEL.gguf PORT SLOTS. Prints its address when it serves."""

import signal
import sys

import xllamacpp

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # the server's threads inherit it
options = xllamacpp.CommonParams()
options.model.path = sys.argv[1]
options.model_alias = {"demo"}
options.port = int(sys.argv[2])
options.n_parallel = int(sys.argv[3])
options.n_ctx = 1024 * options.n_parallel
options.cpuparams.n_threads = 1
options.endpoint_metrics = True
options.warmup = False
options.verbosity = 0
server = xllamacpp.Server(options)
print(server.listening_address, flush=True)
signal.sigwait({signal.SIGTERM})
