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

longer_wins() { # share of pairs whose chosen response has more bytes
    awk '{
        match($0, /"chosen": "([^"\\]|\\.)*"/); chosen = RLENGTH + 2
        match($0, /"rejected": "([^"\\]|\\.)*"/); rejected = RLENGTH
        wins += chosen > rejected ? 1 : chosen == rejected ? 0.5 : 0
    } END { printf "%.3f", wins / NR }' "$1"
}

preferences() { # preferences NAME FILE SPLIT-OPTION VALUE PRETRAIN-EPOCHS RM-EPOCHS CONTEXT: from text to held-out accuracy
    name=$1
    [ -e "$name.train.jsonl" ] || step "$name.train.jsonl" orl split --data "$2" "$3" "$4" --out-train "$name.train.jsonl" --out-test "$name.test.jsonl" --seed 1 --overwrite
    step "$name.tok" orl tokenizer --train "$name.train.jsonl" --vocab 2048 --out "$name.tok"
    step "$name.init" orl init --arch llama --layers 2 --dim 128 --heads 4 --ctx "$7" --tokenizer "$name.tok" --out "$name.init"
    resumed "$name.base" orl pretrain --model "$name.init" --data "$name.train.jsonl" --out "$name.base" --epochs "$5" --batch 32 --lr 0.002 --schedule cosine --warmup 20
    resumed "$name.rm" orl rm --model "$name.base" --data "$name.train.jsonl" --out "$name.rm" --epochs "$6" --batch 32 --lr 0.0003 --schedule cosine --warmup 20 --weight-decay 0.1
    orl score --rm "$name.rm" --data "$name.test.jsonl" --quiet --out "$name.scored.jsonl" --overwrite 2>"$name.accuracy"
    awk -v name="$name" -v longer="$(longer_wins "$name.test.jsonl")" -v known="$8" '/accuracy/ {
        match($0, /accuracy [0-9.]+/); a = substr($0, RSTART + 9, 6)
        match($0, /interval [0-9.]+ to [0-9.]+/); split(substr($0, RSTART + 9), i, " ")
        match($0, /on [0-9]+ pairs/); n = substr($0, RSTART + 3, RLENGTH - 9)
        printf "%-14s %6d  %.3f  [%.3f, %.3f]    %s          %s\n", name, n, a, i[1], i[3], longer, known
    }' "$name.accuracy"
}

{
    echo 'Reward models: accuracy on held-out pairs'
    echo 'data            pairs  ours   95 % interval     longer wins    known: linear bag of words'
    preferences ukp "$data/preference/ukp-convarg.jsonl" --by topic 4 2 320 0.86
    preferences hh-helpful "$data/preference/hh-helpful-base.jsonl" --test-fraction 0.2 4 1 512 0.60
    preferences hh-harmless "$data/preference/hh-harmless-base.jsonl" --test-fraction 0.2 4 1 512 0.60
} >preferences.txt
cat preferences.txt

# ---- (b) stories ----

ledger="--ledger ledger.jsonl"
short="--max-tokens 100 --temperature 1"
step base orl import --llama2c "$data/weights/stories260K/stories260K.bin" --tokenizer "$data/weights/stories260K/stories260K.tok512.bin" --out base
step stories.jsonl valence --stories "$data/text/tinystories_train_sample.txt" --out stories.jsonl
step asks.jsonl valence --stories "$data/text/tinystories_valid_sample.txt" --out asks.jsonl
head -n 1000 stories.jsonl >prompts.jsonl # to sample from in training; the rest of the story is not read
head -n 300 asks.jsonl >test.jsonl        # to compare on
resumed sft orl sft --model base --data stories.jsonl --out sft --epochs 1 --batch 32 --lr 0.0003 --schedule cosine --warmup 10

# samples, labelled by valence: eight for each prompt
step samples.jsonl orl generate --model sft --data prompts.jsonl -n 8 $short --seed 1 --out samples.jsonl $ledger
step valued.jsonl valence --lexicon "$data/lexicon/vader_lexicon.txt" --data samples.jsonl --out valued.jsonl

# pairs of neighbouring samples of one prompt, the happier one chosen: what a reward model learns from
awk 'function field(name) { return match($0, "\"" name "\": *\"([^\"\\\\]|\\\\.)*\"") ? substr($0, RSTART, RLENGTH) : "" }
     function text(f) { sub(/^"[a-z]+": */, "", f); return f }
     {
         prompt = field("prompt"); answer = text(field("completion"))
         match($0, /"reward": *[-0-9.e]+/); reward = substr($0, RSTART + 9, RLENGTH - 9) + 0
         if (NR % 2 == 0 && prompt == before && reward != lower)
             print "{" prompt ", \"chosen\": " (reward > lower ? answer : other) ", \"rejected\": " (reward > lower ? other : answer) "}"
         before = prompt; other = answer; lower = reward
     }' valued.jsonl >pairs.jsonl
[ -e pairs.train.jsonl ] || orl split --data pairs.jsonl --test-fraction 0.1 --out-train pairs.train.jsonl --out-test pairs.test.jsonl --overwrite
resumed rm orl rm --model sft --data pairs.train.jsonl --eval-data pairs.test.jsonl --out rm --epochs 3 --batch 32 --lr 0.0005 --schedule cosine --warmup 10

# every method learns from the reward model's labels
step scored.jsonl orl score --rm rm --data samples.jsonl --out scored.jsonl $ledger
offline="--model sft --data scored.jsonl --batch 64 --lr 0.0005 --schedule cosine --warmup 10 $ledger"
resumed mle orl align --method mle --quantile 0.8 --epochs 3 $offline --out mle
resumed rwr orl align --method rwr --beta 0.5 --epochs 1 $offline --out rwr
resumed dt orl align --method dt --condition bins --condition-dropout 0.1 --epochs 2 $offline --out dt
resumed ppo orl align --method ppo --model sft --rm rm --data prompts.jsonl --steps 40 --rollouts 128 --minibatch 32 --lr 0.0002 --critic-lr 0.001 --kl 0.03 $short $ledger --out ppo

[ -e compared ] || orl eval --model sft mle rwr dt ppo --data test.jsonl --rm rm --best-of 8 $short --seed 2 $ledger --out compared >table.txt

# the reward itself, which no method saw: valence per word of one sample for each test prompt
{
    echo 'Valence per word of the stories (mean, 95 % interval)'
    for model in sft mle rwr dt ppo; do
        orl generate --model $model --data test.jsonl $short --seed 3 --quiet --out $model.test.jsonl --overwrite
        valence --lexicon "$data/lexicon/vader_lexicon.txt" --data $model.test.jsonl --out $model.valued.jsonl
        awk -v name=$model '{ match($0, /"reward": *[-0-9.e]+/); x = substr($0, RSTART + 9, RLENGTH - 9) + 0; s += x; q += x * x }
            END { m = s / NR; e = 1.96 * sqrt((q / NR - m * m) / NR); printf "%-6s %.4f  [%.4f, %.4f]\n", name, m, m - e, m + e }' $model.valued.jsonl
    done
} >valence.txt

{ cat preferences.txt; echo; cat table.txt; echo; cat valence.txt; } >summary.txt
cat table.txt valence.txt
echo "report: $out/compared/report.html"
