#!/usr/bin/env python3
"""peft_check.py - adapters that build/orl trains, merged by PEFT's definition and compared with build/orl's own merging.

    make peft        (needs python3 with numpy; Debian: apt install python3-numpy)

For a family with plain, one with transposed and one with interleaved fused layers: W + alpha/r * B @ A, transposed where
fan_in_fan_out says so, as PEFT's LoRA layers compute it from adapter_config.json and adapter_model.safetensors.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

ORL = os.path.abspath("build/orl")


def orl(*arguments):
    subprocess.run([ORL, *arguments, "--quiet"], check=True, stderr=subprocess.DEVNULL)


def tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            assert t["dtype"] == "F32"
            out[name] = np.frombuffer(data[8 + size + begin:8 + size + end], np.float32).reshape(t["shape"])
    return out


def check(family):
    orl("init", "--arch", family, "--tokenizer", "tok", "--out", "base")
    orl("sft", "--model", "base", "--data", "rows.jsonl", "--lora", "4", "--lora-alpha", "6", "--lr", "0.01", "--steps",
        "20", "--batch", "2", "--out", "adapter")
    orl("export", "--model", "adapter", "--out", "whole")
    base, adapter, whole = (tensors(f) for f in ("base/model.safetensors", "adapter/adapter_model.safetensors",
                                                 "whole/model.safetensors"))
    with open("adapter/adapter_config.json", encoding="utf-8") as f:
        config = json.load(f)
    prefix, suffix = "base_model.model.", ".lora_A.weight"
    off = change = 0.0
    for name in (n for n in adapter if n.endswith(suffix)):
        module = name[len(prefix):-len(suffix)]
        assert module.split(".")[-1] in config["target_modules"], module
        delta = config["lora_alpha"] / config["r"] * adapter[name.replace("lora_A", "lora_B")] @ adapter[name]
        delta = delta.T if config["fan_in_fan_out"] else delta
        merged = base.pop(module + ".weight") + delta
        off = max(off, float(abs(merged - whole[module + ".weight"]).max()))
        change = max(change, float(abs(delta).max()))
    same = all((base[n] == whole[n]).all() for n in base)
    good = off < 1e-6 < change and same
    print("%s: %s, off by %.1e where it changed by up to %.1e" % (family, "passed" if good else "FAILED", off, change))
    return good


def main():
    with tempfile.TemporaryDirectory() as place:
        results = []
        for family in ("gpt2", "gpt_neox", "qwen3"):
            os.makedirs(os.path.join(place, family))
            os.chdir(os.path.join(place, family))
            with open("rows.jsonl", "w", encoding="utf-8") as f:
                f.write('{"prompt": "Good day", "completion": " to you"}\n')
                f.write('{"prompt": "Good night", "completion": " and sleep well"}\n')
            orl("tokenizer", "--train", "rows.jsonl", "--vocab", "258", "--out", "tok")
            results.append(check(family))
        os.chdir("/")
    print("peft_check: %d passed, %d failed" % (sum(results), len(results) - sum(results)))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
