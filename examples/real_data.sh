#!/bin/sh
# real_data.sh - the command-line tool on real files: two reward models, then stories aligned four ways.
#
#   sh examples/real_data.sh DATA-DIR [OUT]        OUT: build/real
#
# DATA-DIR holds preference/*.jsonl, text/tinystories_*.txt, lexicon/vader_lexicon.txt and
# weights/stories260K/. Steps whose output is in OUT already are not run again, so an interrupted
# script goes on where it stopped. Everything it prints last is in OUT/summary.txt too.
#   (a) preferences: a reward model on convincing arguments, tested on topics it never saw, and one on
#       each hh file; accuracy with its 95 % interval beside "the longer one wins"
#   (b) stories: a 260K-parameter model continues a first sentence; the reward is the story's VADER
#       valence per word, which examples/valence.c writes: that is how to bring a reward of one's own.
#       MLE filter, RWR and DT learn from one set of samples, PPO from its own; then one table.
set -e
data=$(cd "${1:?usage: real_data.sh DATA-DIR [OUT]}" && pwd)
cd "$(dirname "$0")/.."
out=${2:-build/real}
mkdir -p build "$out"
for program in orl valence; do
    [ build/$program -nt examples/$program.c ] || ${CC:-cc} -O2 examples/$program.c -o build/$program -lm -lpthread
done
export PATH="$PWD/build:$PATH"
cd "$out"

step() { # step OUTPUT COMMAND…: runs the command unless its output is there
    [ -e "$1" ] && return
    shift
    echo "\$ $*" >&2
    "$@"
}
resumed() { step "$@" --resume; } # a training run goes on from its checkpoint

# ---- (a) reward models on human preferences ----

# Accuracy on scored pairs, its 95 % Wilson interval, and what "the longer one wins" gets on the same pairs.
accuracy() { # accuracy NAME KNOWN FILE…
    name=$1 known=$2
    shift 2
    cat "$@" | awk -v name="$name" -v known="$known" '
        function size(field) { match($0, "\"" field "\": \"([^\"\\\\]|\\\\.)*\""); return RLENGTH - length(field) }
        function number(field) { match($0, "\"" field "\": "); return substr($0, RSTART + RLENGTH) + 0 }
        function wins(a, b) { return a > b ? 1 : a == b ? 0.5 : 0 }
        /"chosen_reward": / {
            n++
            right += wins(number("chosen_reward"), number("rejected_reward"))
            longer += wins(size("chosen"), size("rejected"))
        }
        END {
            p = right / n; z = 1.96; middle = (p + z * z / (2 * n)) / (1 + z * z / n)
            half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
            printf "%-14s %6d  %.3f  [%.3f, %.3f]", name, n, p, middle - half, middle + half
            printf "     %.3f         %s\n", longer / n, known
        }'
}
split() { # split DATA TRAIN TEST OPTIONS…
    rows=$1 train=$2 test=$3
    shift 3
    [ -e "$train" ] || orl split --data "$rows" --out-train "$train" --out-test "$test" --seed 1 --overwrite "$@"
}

# A trunk: a tokenizer and a small model, pretrained on the dialogues of both hh files.
for name in helpful harmless; do split "$data/preference/hh-$name-base.jsonl" hh-$name.train hh-$name.test \
    --test-fraction 0.2; done
cat hh-helpful.train hh-harmless.train | sed 's/^{"chosen": /{"text": /; s/, "rejected": .*/}/' >hh.jsonl
step hh.tok orl tokenizer --train hh.jsonl --vocab 2048 --out hh.tok
step hh.init orl init --arch llama --layers 2 --dim 128 --heads 4 --ctx 512 --tokenizer hh.tok --out hh.init
resumed hh.base orl pretrain --model hh.init --data hh.jsonl --epochs 4 --batch 16 --lr 0.002 --out hh.base

# Convincing arguments: 16 topics in four parts, each judged by a model that saw the other three. An
# argument occurs in about twenty pairs, so a third of the pairs shows them all; more is learned by
# heart. No topic is in both training and test, nor the other side of one.
split "$data/preference/ukp-convarg.jsonl" ukp.rest1 ukp.test1 --by topic --test-fraction 0.25
split ukp.rest1 ukp.rest2 ukp.test2 --by topic --test-fraction 0.3334
split ukp.rest2 ukp.test4 ukp.test3 --by topic --test-fraction 0.5
for part in 1 2 3 4; do
    for other in 1 2 3 4; do [ $other = $part ] || cat ukp.test$other; done | awk 'NR % 3 == 1' >ukp.train$part
    resumed ukp.rm$part orl rm --model hh.base --data ukp.train$part --epochs 1 --batch 64 --lr 0.001 --warmup 5 \
        --out ukp.rm$part
    step ukp.scored$part orl score --rm ukp.rm$part --data ukp.test$part --out ukp.scored$part
done

# Dialogues: a model for each file.
for name in helpful harmless; do
    resumed hh-$name.rm orl rm --model hh.base --data hh-$name.train --epochs 1 --batch 32 --lr 0.0003 --out hh-$name.rm
    step hh-$name.scored orl score --rm hh-$name.rm --data hh-$name.test --out hh-$name.scored
done

{
    echo 'Reward models: accuracy on held-out pairs (known: a linear bag of words, an 80/20 split;'
    echo 'of UKP by topic and side, so that the other side of a tested topic had been seen)'
    echo 'data            pairs  ours   95 % interval      longer wins   known'
    accuracy 'UKP, by topic' 0.86 ukp.scored[1-4]
    accuracy hh-helpful 0.60 hh-helpful.scored
    accuracy hh-harmless 0.60 hh-harmless.scored
} >preferences.txt
cat preferences.txt

# ---- (b) stories ----

ledger="--ledger ledger.jsonl"
short="--max-tokens 144 --temperature 1" # a story of 60 words has about 120 tokens
step base orl import --llama2c "$data/weights/stories260K/stories260K.bin" \
    --tokenizer "$data/weights/stories260K/stories260K.tok512.bin" --out base
step stories.jsonl valence --stories "$data/text/tinystories_train_sample.txt" --out stories.jsonl
step asks.jsonl valence --stories "$data/text/tinystories_valid_sample.txt" --out asks.jsonl
head -n 800 stories.jsonl >prompts.jsonl # to sample from in training; the rest of the story is not read
head -n 300 asks.jsonl >test.jsonl        # to compare on
resumed sft orl sft --model base --data stories.jsonl --out sft --epochs 1 --batch 32 --lr 0.0003 \
    --schedule cosine --warmup 10

# samples, labelled by valence: eight for each prompt
step samples.jsonl orl generate --model sft --data prompts.jsonl -n 8 $short --seed 1 --out samples.jsonl $ledger
step valued.jsonl valence --lexicon "$data/lexicon/vader_lexicon.txt" --data samples.jsonl --out valued.jsonl

# pairs of neighbouring samples of one prompt, the happier one chosen: what a reward model learns from
# (an answer that ended at once has no text to learn from)
awk 'function field(name) {
         return match($0, "\"" name "\": *\"([^\"\\\\]|\\\\.)*\"") ? substr($0, RSTART, RLENGTH) : ""
     }
     function text(f) { sub(/^"[a-z]+": */, "", f); return f }
     {
         prompt = field("prompt"); answer = text(field("completion"))
         match($0, /"reward": *[-0-9.e]+/); reward = substr($0, RSTART + 9, RLENGTH - 9) + 0
         if (NR % 2 == 0 && prompt == before && reward != lower && answer != "\"\"" && other != "\"\"")
             print "{" prompt ", \"chosen\": " (reward > lower ? answer : other) \
                 ", \"rejected\": " (reward > lower ? other : answer) "}"
         before = prompt; other = answer; lower = reward
     }' valued.jsonl >pairs.jsonl
[ -e pairs.train.jsonl ] || orl split --data pairs.jsonl --test-fraction 0.1 --out-train pairs.train.jsonl \
    --out-test pairs.test.jsonl --overwrite
resumed rm orl rm --model sft --data pairs.train.jsonl --eval-data pairs.test.jsonl --out rm --epochs 3 --batch 32 \
    --lr 0.0005 --schedule cosine --warmup 10

# Every method learns from the reward model's labels. PPO takes nothing off a story that is cut, as nearly all are:
# a penalty teaches it to stop after a sentence of happy words.
step scored.jsonl orl score --rm rm --data samples.jsonl --out scored.jsonl $ledger
offline="--model sft --data scored.jsonl --batch 64 --lr 0.0005 --schedule cosine --warmup 10 $ledger"
resumed mle orl align --method mle --quantile 0.8 --epochs 3 $offline --out mle
resumed rwr orl align --method rwr --beta 0.5 --epochs 1 $offline --out rwr
resumed dt orl align --method dt --condition bins --condition-dropout 0.1 --epochs 2 $offline --out dt
resumed ppo orl align --method ppo --model sft --rm rm --data prompts.jsonl --steps 30 --rollouts 128 \
    --minibatch 32 --lr 0.0001 --critic-lr 0.0005 --kl 0.2 --unfinished-penalty 0 $short $ledger --out ppo

[ -e compared ] || orl eval --model sft mle rwr dt ppo --data test.jsonl --rm rm --best-of 8 $short \
    --seed 2 $ledger --out compared >table.txt

# the reward itself, which no method saw: valence per word of one sample for each test prompt
{
    echo 'Valence per word of the stories (mean, 95 % interval)'
    for model in sft mle rwr dt ppo; do
        orl generate --model $model --data test.jsonl $short --seed 3 --quiet --out $model.test.jsonl --overwrite
        valence --lexicon "$data/lexicon/vader_lexicon.txt" --data $model.test.jsonl --out $model.valued.jsonl
        awk -v name=$model '
            { match($0, /"reward": */); x = substr($0, RSTART + RLENGTH) + 0; s += x; q += x * x }
            END {
                mean = s / NR; half = 1.96 * sqrt((q / NR - mean * mean) / NR)
                printf "%-6s %.4f  [%.4f, %.4f]\n", name, mean, mean - half, mean + half
            }' $model.valued.jsonl
    done
} >valence.txt

{ cat preferences.txt; echo; cat table.txt; echo; cat valence.txt; } >summary.txt
cat table.txt valence.txt
echo "report: $out/compared/report.html"
