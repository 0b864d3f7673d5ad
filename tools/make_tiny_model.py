#!/usr/bin/env python3
"""Writes a random model directory from a config.json: the same numbers as the C++ tests' write_random_model.

  tools/make_tiny_model.py tests/golden/models/qwen2/config.json /tmp/model --seed 1 --dtype BF16 --shards 2
"""

import argparse
import json

import tiny_model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config.json to start from")
    parser.add_argument("directory", help="where to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtype", choices=["F32", "F16", "BF16"], default="F32")
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args()
    with open(options.config) as file:
        config = json.load(file)
    tiny_model.write_model(options.directory, config, options.seed, options.dtype, options.shards)


if __name__ == "__main__":
    main()
