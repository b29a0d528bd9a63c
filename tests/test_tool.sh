#!/bin/sh
# test_tool.sh - black-box tests of examples/orl.c: what people type, what comes back, what is left behind.
#
#   sh tests/test_tool.sh            builds build/orl with make, or takes the program in $ORL
#
# Everything happens in a temporary directory, on rows made by awk and models small enough to train
# in milliseconds. A failing check prints what was run; the last line is "test_tool: N passed, M failed".
set -u
cd "$(dirname "$0")/.." || exit 1
if [ -z "${ORL:-}" ]; then
    ${MAKE:-make} -s build/orl || exit 1
    ORL=$PWD/build/orl
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

passed=0
failed=0
last=nothing
check() { # check WHAT COMMAND…: the command must succeed
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $what (after: $last)"
        sed 's/^/    /' err | tail -n 3
    fi
}
run() { # run STATUS ARGUMENTS…: orl must exit with this status; its output is left in out and err
    expected=$1
    shift
    last="orl $*"
    "$ORL" "$@" >out 2>err </dev/null
    status=$?
    check "status $status instead of $expected" [ $status -eq "$expected" ]
}
says() { check "stderr does not say: $1" grep -Eqi -- "$1" err; }
silent() { check "stderr is not empty" [ ! -s err ]; }
prints() { check "stdout does not have: $1" grep -Eq -- "$1" out; }
rows() { check "$1 has not $2 rows" [ "$(grep -c . "$1")" -eq "$2" ]; }
has() { for f; do check "$f is missing" [ -e "$f" ]; done; }
gone() { for f; do check "$f is there" [ ! -e "$f" ]; done; }
same() { check "$1 and $2 differ" cmp -s "$1" "$2"; }
differ() { check "$1 and $2 are the same" eval '! cmp -s "$1" "$2"'; }
fields() { # fields FILE NAME…: every row has these fields
    file=$1
    shift
    for f; do check "$file: rows without \"$f\"" [ "$(grep -c "\"$f\":" "$file")" -eq "$(grep -c . "$file")" ]; done
}
weights() { echo "$1/model.safetensors"; }

# ---- rows: people ask for a colour; short answers are better ----
awk 'BEGIN {
    split("red blue green pink black white gray teal", c, " ")
    for (i = 0; i < 48; i++) {
        p = "Name the color " i % 12 ":"
        a = " " c[i % 8 + 1] "."
        b = " well it may be " c[(i + 3) % 8 + 1] " I think."
        reward = (i % 3 ? 1 : -1) + i % 7 / 10
        printf "{\"text\": \"%s%s\"}\n", p, a > "text.jsonl"
        printf "{\"prompt\": \"%s\", \"completion\": \"%s\"}\n", p, a > "sft.jsonl"
        printf "{\"prompt\": \"%s\", \"chosen\": \"%s\", ", p, a > "pairs.jsonl"
        printf "\"rejected\": \"%s\", \"topic\": \"t%d\"}\n", b, i % 6 > "pairs.jsonl"
        printf "{\"id\": %d, \"prompt\": \"%s\", ", i, p > "labelled.jsonl"
        printf "\"completion\": \"%s\", \"reward\": %.3f}\n", i % 3 ? a : b, reward > "labelled.jsonl"
        printf "%s%s\n%s%s\n", p, a, p, b > "corpus.txt"
        if (i >= 6) continue
        printf "{\"prompt\": \"%s\", \"id\": %d, \"extra\": {\"a\": [1, \"\\u00e9\"]}}\n", p, i > "prompts.jsonl"
    }
}'
one="--threads 1 --quiet"

# ---- usage ----
run 0 --help; prints 'pretrain'; prints 'eval'
run 2; says 'usage'
run 2 alingn; says 'did you mean align'
run 0 --version; prints '^orl [0-9]'
for c in demo tokenizer encode decode init import export split pretrain sft rm generate chat logprob score align eval; do
    run 0 $c --help; prints "usage: orl $c "; prints '--threads'
done
run 2 sft --bacth 4 --model a --data b --out c; says 'did you mean --batch'
run 2 sft --rollouts 4 --model a --data b --out c; says 'belongs to orl align'
run 2 sft --model a --data b; says 'needs --out'
run 2 sft --steps many; says '"many"'
run 2 sft --steps -3; says 'is not N'
run 2 sft --lr nan; says '"nan"'
run 2 sft --resume=1; says 'takes no value'
run 2 sft --steps; says 'needs a value'
run 2 sft model; says 'options only'
run 2 sft --schedule wavy; says 'constant'
run 2 generate --model m; says 'data or --prompt'
run 2 generate --model m --prompt x --target-reward q2; says 'q2'
run 2 align --model m --data d --out o; says 'needs --method'
run 2 align --method best --model m --data d --out o; says 'best'
run 2 align --method mle --quantile 0.5 --threshold 1 --model m --data d --out o; says 'one of'
run 2 align --method ppo --model m --data d --out o; says 'needs --rm'
run 2 align --method mle --kl 1 --model m --data d --out o; says '\[?ppo'
run 2 align --method ppo --rm r --quantile 0.5 --model m --data d --out o; says 'quantile'
run 2 align --method ppo+mle --rm r --model m --data d --out o; says 'combine'
run 1 sft --model nowhere --data sft.jsonl --out o; says 'nowhere'; gone o o.partial

# ---- tokenizer, encode, decode ----
run 0 tokenizer $one --train corpus.txt sft.jsonl --vocab 320 --out tok; has tok/tokenizer.json; gone tok.partial
run 1 tokenizer $one --train corpus.txt --vocab 320 --out tok; says 'overwrite'
run 0 tokenizer $one --train corpus.txt --vocab 320 --out tok --overwrite; has tok/tokenizer.json
run 1 tokenizer $one --train nothing.txt --vocab 320 --out tok2; says 'nothing.txt'; gone tok2 tok2.partial
code() { # code COMMAND FILE [--lines]
    last="orl $*"
    "$ORL" "$1" --model tok --threads 1 ${3:-} <"$2" >out 2>err
    status=$?
}
printf 'Name the color 3: red.\n\n  caf\303\251 \342\202\254 \360\237\230\200<|endoftext|>tail  ' >raw
code encode raw; check "encode: status $status" [ $status -eq 0 ]; rows out 1; prints '^\[[0-9, ]+\]$'
prints '[^0-9]0[,]'
cp out ids; code decode ids; check "decode: status $status" [ $status -eq 0 ]; same out raw
printf 'red\n\n blue \n' >lines
code encode lines --lines; rows out 3; check "an empty line is []" [ "$(sed -n 2p out)" = '[]' ]
cp out ids; code decode ids --lines; same out lines
: >nothing; code encode nothing; check "nothing is []" [ "$(cat out)" = '[]' ]
echo '[1, 2' >bad; code decode bad; check "bad ids: status $status" [ $status -eq 1 ]; says 'array'
printf '[1]\n[x]\n' >bad; code decode bad --lines; check "bad ids: status $status" [ $status -eq 1 ]; says 'stdin:2'
echo '[99999]' >bad; code decode bad; check "unknown id: status $status" [ $status -eq 1 ]; says '99999'


# ---- chat templates: by the tokenizer's special tokens, or by name ----
run 0 tokenizer $one --train corpus.txt --vocab 320 --special '<|im_start|>' '<|im_end|>' --out chattok
echo '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a color."},
 {"role": "assistant", "content": "red"}]}' | tr -d '\n' >chat.jsonl
echo >>chat.jsonl
printf '{"messages": [{"role": "user", "content": "Name a color."}]}\n' >ask.jsonl
run 0 encode $one --model chattok --dump --data chat.jsonl
prints '^ +1  0 +"<.im_start.>"$'; prints '^ +2  1 +"<.im_end.>"$'
check 'the end of turn is learned once' [ "$(grep -c '  1  *"<|im_end|>"$' out)" -eq 1 ]
check 'the system message ends a turn too' [ "$(grep -c '  0  *"<|im_end|>"$' out)" -eq 2 ]
run 0 encode $one --model chattok --dump --data ask.jsonl
check 'a prompt alone has no loss' [ -z "$(awk 'NR > 2 && $2 != 0' out)" ]
run 0 encode $one --model tok --dump --data chat.jsonl
check 'hh opens with the system message' grep -q '  0  *"B' out
run 0 encode $one --model tok --dump --data chat.jsonl --template llama2
check 'Llama 2 opens with a tag' [ "$(awk 'NR == 3 { print $3 }' out)" = '"["' ]
run 2 encode $one --model tok --dump --data ask.jsonl --template gemini; says 'gemini'
run 2 encode $one --model tok --data chat.jsonl; says '--dump'
code encode raw --dump; check "encode --dump: status $status" [ $status -eq 0 ]; prints '^ +id  token$'
prints '^ +0  "<.endoftext.>"$'
code encode lines '--dump --lines'; prints '^line 3$'
run 0 init --arch llama --tokenizer chattok --layers 1 --dim 16 --heads 2 --ctx 128 --threads 1 --out chatbase
run 0 sft $one --model chatbase --data chat.jsonl --steps 2 --batch 1 --out chatsft
check 'its config stops at the end of turn' grep -q '"eos_token_id": \[2, 0\]' chatsft/config.json
run 0 generate $one --model chatsft --data ask.jsonl -n 2 --max-tokens 4; prints '"templated": true'; prints 'im_start'
run 0 sft $one --model chatbase --data chat.jsonl --template hh --steps 2 --batch 1 --out chathh
check 'hh ends with the end of text' grep -q '"eos_token_id": 0' chathh/config.json

# ---- init, split ----
small="--layers 1 --dim 16 --heads 2 --ctx 64 --threads 1"
run 0 init --arch llama --tokenizer tok $small --kv-heads 1 --out base
has base/config.json base/model.safetensors base/tokenizer.json; gone base.partial
run 0 init --arch gpt2 --tokenizer tok $small --out gpt; has gpt/config.json
run 0 init --arch llama --vocab 300 $small --out bare; gone bare/tokenizer.json
run 0 init --arch llama --tokenizer tok $small --kv-heads 1 --out base2 --seed 7
differ "$(weights base)" "$(weights base2)"
run 1 init --arch llama --tokenizer tok $small --heads 3 --out odd; says 'heads'; gone odd odd.partial
run 2 init --out x; says '--tokenizer or --vocab'
mkdir full; echo mine >full/letter.txt
run 1 init --vocab 300 $small --out full; says 'already'
run 1 init --vocab 300 $small --out full --overwrite; says 'does not look like'; has full/letter.txt
mkdir empty
run 0 init --vocab 300 $small --out empty/; has empty/config.json
run 0 init --vocab 300 $small --out deep/er/model; has deep/er/model/config.json

# ---- export ----
for type in f16 bf16; do
    run 0 export $one --model gpt --dtype $type --out $type; has $type/config.json $type/tokenizer.json; gone $type.partial
    check "$type is no half" [ "$(wc -c <"$(weights $type)")" -lt "$(($(wc -c <"$(weights gpt)") * 3 / 5))" ]
    run 0 export $one --model $type --dtype $type --out $type.again; same "$(weights $type)" "$(weights $type.again)"
    run 0 export $one --model $type --out $type.wide; run 0 export $one --model $type.wide --dtype $type --out $type.back
    same "$(weights $type)" "$(weights $type.back)"
done
run 0 export $one --model gpt --out f32; same "$(weights f32)" "$(weights gpt)"; same f32/config.json gpt/config.json
run 0 export $one --model gpt --out gpt.gguf --dtype q8_0; has gpt.gguf; gone gpt.gguf.tmp
check "no GGUF" [ "$(head -c 4 gpt.gguf)" = GGUF ]
run 1 export $one --model gpt --out gpt.gguf; says 'overwrite'
run 0 export $one --model gpt --out gpt.gguf --overwrite
run 2 export $one --model gpt --out q8 --dtype q8_0; says '\.gguf'; gone q8 q8.partial
run 2 export $one --model gpt --out q8 --dtype f8; says '"f8" is not f32'
run 1 export $one --model nowhere --out x.gguf; says 'nowhere'; gone x.gguf x.gguf.tmp
run 0 init --vocab 300 $small --dtype bf16 --out half
check "init --dtype" grep -q '"torch_dtype": "bfloat16"' half/config.json
run 0 split $one --data pairs.jsonl --by topic --test-fraction 0.4 --out-train a.jsonl --out-test b.jsonl
check "split loses rows" [ "$(cat a.jsonl b.jsonl | wc -l)" -eq 48 ]
sort a.jsonl b.jsonl >joined; sort pairs.jsonl >original; same joined original
sed 's/.*"topic"/topic/' a.jsonl | sort -u >topics_a; sed 's/.*"topic"/topic/' b.jsonl | sort -u >topics_b
check "a topic is on both sides" [ -z "$(comm -12 topics_a topics_b)" ]; check "no test rows" [ -s b.jsonl ]
run 1 split --data pairs.jsonl --out-train a.jsonl --out-test c.jsonl; says 'a.jsonl'; gone c.jsonl
run 1 split --data pairs.jsonl --by color --out-train d.jsonl --out-test e.jsonl; says 'color'; gone d.jsonl e.jsonl

# ---- training: happy paths ----
fast="--threads 1 --steps 4 --batch 8 --lr 0.003"
run 0 pretrain $fast --model base --data text.jsonl --out pre; has pre/config.json pre/log.jsonl
gone pre.partial pre/checkpoint
says 'threads?, .* parameters, about .* MB'; check "progress is plain lines" eval '! grep -q "$(printf "\r")" err'
check "a step's record in the log" grep -q '"loss":' pre/log.jsonl
for f in step loss grad_norm lr tokens seconds elapsed; do
    check "log has no $f" [ "$(grep -c "\"$f\":" pre/log.jsonl)" -ge 4 ]
done
run 0 sft $fast --model pre --data sft.jsonl --out sft --quiet; silent; has sft/config.json
run 0 sft $fast --model gpt --data sft.jsonl --out sft_gpt --quiet; has sft_gpt/config.json
run 0 sft $fast --model gpt --data sft.jsonl --out sft_half --dtype bf16 --quiet
check "sft --dtype" grep -q '"torch_dtype": "bfloat16"' sft_half/config.json
run 0 sft $fast --model pre --data sft.jsonl --eval-data sft.jsonl --eval-every 2 --out sft_eval
check "no val_loss" grep -q val_loss sft_eval/log.jsonl
run 0 rm $fast --model sft --data pairs.jsonl --eval-data pairs.jsonl --margin 0.1 --center 0.01 --out rm
says 'score.weight'; says 'accuracy [01]\.[0-9]+, 95'
check "no head in the file" grep -q 'score.weight' "$(weights rm)"
run 0 rm $fast --model rm --data pairs.jsonl --out rm2
run 1 export $one --model rm --out rm.gguf; says 'reward model'; gone rm.gguf
check "the head was thrown away" eval '! grep -q "new one is made" err'
run 0 align $fast --method sft --model sft --data sft.jsonl --out a_sft
run 0 align $fast --method mle --model sft --data labelled.jsonl --out a_mle; says '[0-9]+ of (the )?48'
run 0 align $fast --method mle --threshold 0 --model sft --data labelled.jsonl --out a_mle0
same "$(weights a_mle)" "$(weights a_mle0)"
run 0 align $fast --quantile 0.5 --model sft --data labelled.jsonl --out a_q
run 0 align $fast --top-k-per-prompt 2 --model sft --data labelled.jsonl --out a_top
run 0 align $fast --best-of 4 --model sft --data labelled.jsonl --out a_best
run 0 align $fast --method rwr --baseline prompt --weight-clip 5 --model sft --data labelled.jsonl --out a_rwr
differ "$(weights a_rwr)" "$(weights a_sft)"
run 0 align $fast --method dt --model sft --data labelled.jsonl --out a_dt
check "no condition in config.json" grep -q orl_condition a_dt/config.json
run 0 align $fast --method dt --condition bins --condition-dropout 0.1 --model sft --data labelled.jsonl --out a_bins
run 0 align $fast --method dt --quantile 0.5 --beta 1 --model sft --data labelled.jsonl --out a_all
run 0 align $fast --method mle+dt --rank-per-prompt --reward-decimals 2 --model sft --data labelled.jsonl --out a_mix
run 0 align $fast --method dpo --beta 0.2 --model sft --data pairs.jsonl --out a_dpo
ppo="--threads 1 --steps 2 --rollouts 4 --minibatch 2 --ppo-epochs 2 --max-tokens 8"
run 0 align $ppo --method ppo --kl 0.05 --model sft --rm rm --data prompts.jsonl --out a_ppo; has a_ppo/config.json
run 0 align $fast --method rwr --model sft --rm rm --data sft.jsonl --out a_rm; says 'scores all of them'

# ---- adapters: trained alone, used as a model, merged ----
run 0 export $one --model sft --dtype bf16 --out sft_bf16
run 0 sft $fast --model sft_bf16 --data sft.jsonl --lora 2 --out lora; says 'adapter|lora: done'
has lora/adapter_config.json lora/adapter_model.safetensors; gone lora/model.safetensors lora/config.json lora/checkpoint
check "rank in adapter_config.json" grep -q '"r": 2' lora/adapter_config.json
run 0 logprob $one --model lora --data sft.jsonl --out lora.logprob
run 0 logprob $one --model sft_bf16 --data sft.jsonl --out base.logprob; differ lora.logprob base.logprob
run 0 export $one --model lora --out lora_whole; has lora_whole/model.safetensors lora_whole/tokenizer.json
run 0 sft $fast --model sft_bf16 --data sft.jsonl --lora 2 --merge --out lora_merged; gone lora_merged/adapter_config.json
same "$(weights lora_whole)" "$(weights lora_merged)"
run 0 generate $one --model lora --data prompts.jsonl --max-tokens 4 --out lora.samples
run 0 generate $one --frozen --model lora --data prompts.jsonl --max-tokens 4 --out frozen.samples; same lora.samples frozen.samples
run 0 logprob $one --frozen --model lora --data sft.jsonl --out frozen.logprob; same lora.logprob frozen.logprob
run 0 logprob $one --weights f32 --model lora --data sft.jsonl --out f32.logprob; same lora.logprob f32.logprob
run 0 logprob $one --weights bf16 --model lora --data sft.jsonl --out bf16.logprob; same lora.logprob bf16.logprob
run 0 logprob $one --weights int8 --model lora --data sft.jsonl --out int8.logprob; differ lora.logprob int8.logprob
run 0 logprob --threads 3 --frozen --weights int8 --model lora --data sft.jsonl --out int8.again; same int8.logprob int8.again
run 0 generate $one --weights int8 --model lora --data prompts.jsonl --max-tokens 4 --out int8.samples
run 2 logprob --frozen --weights f32 --model lora --data sft.jsonl; says 'exclude'
run 2 logprob --weights int4 --model lora --data sft.jsonl; says 'f32.bf16.int8'
run 0 precision $one --model sft --data sft.jsonl; rows out 3; fields out weights bytes tokens perplexity mean_difference worst
check "f32 costs something" eval 'head -n 1 out | grep -q "\"mean_difference\": 0, \"worst\": 0}"'
check "int8 costs nothing" eval 'tail -n 1 out | grep -Eq "int8.*\"mean_difference\": 0?\.0*[1-9]"'
check "int8 saves nothing" eval 'awk -F "[:,]" "{ b[NR] = \$4 } END { exit !(b[3] < b[2] && b[2] < b[1]) }" out'
run 0 precision $one --model rm --data pairs.jsonl; rows out 3; fields out weights bytes responses pairs ranked_otherwise
run 0 score $one --rm rm --weights int8 --data sft.jsonl; fields out reward
run 1 precision $one --model rm --data missing.jsonl; says 'missing.jsonl'; rows out 0
run 0 align $fast --method dt --model sft --data labelled.jsonl --lora 2 --lora-targets q_proj,v_proj --out lora_dt
check "the condition is lost" grep -q orl_condition lora_dt/orl_adapter.json
run 0 generate $one --model lora_dt --target-reward 1 --data prompts.jsonl --max-tokens 4 --out lora_dt.samples
run 0 rm $fast --model sft --data pairs.jsonl --lora 2 --out lora_rm; run 0 score $one --rm lora_rm --data sft.jsonl --out s.jsonl
run 0 align $ppo --method ppo --kl 0.05 --model sft --rm lora_rm --data prompts.jsonl --lora 2 --out lora_ppo
has lora_ppo/adapter_config.json
run 1 sft $fast --model sft --data sft.jsonl --lora 2 --lora-targets wq --out lora_no; says '"wq"'; gone lora_no lora_no.partial
run 1 align $fast --method dt --condition bins --model sft --data labelled.jsonl --lora 2 --out lora_bins; says 'condition by text'
run 1 generate $one --model sft/../lora_nowhere --prompt x; says 'lora_nowhere'

# ---- the same bits: threads, runs ----
run 0 sft $fast --threads 3 --model pre --data sft.jsonl --out sft3; same "$(weights sft)" "$(weights sft3)"
run 0 sft $fast --seed 9 --model pre --data sft.jsonl --out sft9; differ "$(weights sft)" "$(weights sft9)"

# ---- resume = no interruption ----
# The model is larger here, so that a run takes a second and a signal finds it at work.
run 0 init --arch llama --tokenizer tok --layers 2 --dim 64 --heads 4 --ctx 64 --out mid
run 0 rm $fast --model mid --data pairs.jsonl --out mid_rm
slow="--threads 1 --quiet --batch 40 --lr 0.001 --save-every 20"
interrupt() { # interrupt NAME ARGUMENTS…: a run to its end, then one that SIGINT stops and --resume ends
    name=$1
    shift
    run 0 "$@" --out "$name.whole"
    last="orl $* --out $name.cut, then SIGINT"
    "$ORL" "$@" --out "$name.cut" >out 2>err &
    pid=$!
    tries=0
    until grep -qs '"step": 3' "$name.cut.partial/log.jsonl" || [ $tries -ge 500 ]; do
        sleep 0.02
        tries=$((tries + 1))
    done
    kill -INT $pid 2>/dev/null
    wait $pid
    status=$?
    check "$name: status $status instead of 130" [ $status -eq 130 ]
    says '--resume'
    has "$name.cut.partial/checkpoint"; gone "$name.cut"
    run 1 "$@" --out "$name.cut"; says 'unfinished'
    run 0 "$@" --out "$name.cut" --resume
    same "$(weights "$name.whole")" "$(weights "$name.cut")"
    gone "$name.cut.partial" "$name.cut/checkpoint"
    check "$name: no resumed_from in the log" grep -q resumed_from "$name.cut/log.jsonl"
    steps=$(grep -c '"loss":' "$name.whole/log.jsonl")
    check "$name: steps twice in the log" [ "$(grep -c '"loss":' "$name.cut/log.jsonl")" -eq "$steps" ]
}
interrupt i_sft sft $slow --steps 250 --model mid --data sft.jsonl
interrupt i_rm rm $slow --steps 120 --model mid --data pairs.jsonl
interrupt i_dt align $slow --steps 150 --method dt --condition bins --model mid --data labelled.jsonl
interrupt i_ppo align --threads 1 --quiet --steps 40 --rollouts 24 --minibatch 8 --max-tokens 24 --save-every 10 \
    --method ppo --model mid --rm mid_rm --data prompts.jsonl
run 0 sft $slow --steps 250 --model mid --data sft.jsonl --out i_sft.cut --resume; says 'nothing to do'
run 0 sft $fast --model pre --data sft.jsonl --out early --resume; says 'starting at step 0'
same "$(weights early)" "$(weights sft)"

# ---- outputs that are there already, refusals ----
run 1 sft $fast --model pre --data sft.jsonl --out sft; says 'sft.*already'
run 0 sft $fast --model pre --data sft.jsonl --out sft_gpt --overwrite; same "$(weights sft_gpt)" "$(weights sft)"
run 0 sft $fast --model pre --data sft.jsonl --out e --estimate; prints '^total'; gone e e.partial
run 0 sft $fast --model pre --data sft.jsonl --dump-batch; prints .; gone e
refused() { # refused PATTERN ARGUMENTS…: fails with this sentence and leaves nothing
    pattern=$1
    shift
    run 1 "$@" $fast --out refused; says "$pattern"; gone refused refused.partial
}
: >void.jsonl; refused 'void.jsonl' sft --model pre --data void.jsonl
refused 'missing.jsonl' sft --model pre --data missing.jsonl
{ cat sft.jsonl; echo '{"prompt": "a", "completion": "b"'; } >cut.jsonl
refused 'cut.jsonl:49' sft --model pre --data cut.jsonl
{ head -n 3 sft.jsonl; echo '{"prompt": "a", "completion": ""}'; } >blank.jsonl
refused 'blank.jsonl:4' sft --model pre --data blank.jsonl
{ head -n 2 labelled.jsonl; echo '{"prompt": "a", "completion": "b", "reward": NaN}'; } >nan.jsonl
refused 'nan.jsonl:3' align --method mle --model sft --data nan.jsonl
{ head -n 2 labelled.jsonl; echo '{"prompt": "a", "completion": "b", "reward": 1e999}'; } >inf.jsonl
refused 'inf.jsonl:3' align --method rwr --model sft --data inf.jsonl
{ head -n 2 labelled.jsonl; echo '{"prompt": "a", "completion": "b"}'; } >half.jsonl
refused 'half.jsonl:3.*reward' align --method mle --model sft --data half.jsonl
refused 'prompt|pair|chosen' sft --model pre --data prompts.jsonl
refused 'pair|chosen' rm --model sft --data sft.jsonl
refused 'threshold|filter|rows' align --method mle --threshold 50 --model sft --data labelled.jsonl
sed 's/"reward": [-0-9.]*/"reward": 1/' labelled.jsonl >flat.jsonl
refused 'flat.jsonl.*equal' align --method rwr --model sft --data flat.jsonl
run 1 align $ppo --method ppo --model sft --rm sft --data prompts.jsonl --out refused; says 'reward model|head|score'
gone refused refused.partial
run 0 tokenizer $one --train corpus.txt --vocab 340 \
    --special $(awk 'BEGIN { for (i = 0; i < 40; i++) printf "<|%d|> ", i }') --out bigtok
cp -r pre clash; cp bigtok/tokenizer*.json clash/; refused 'clash|vocab' sft --model clash --data sft.jsonl
refused 'tokenizer' sft --model bare --data sft.jsonl
cp -r pre torn; head -c 900 "$(weights pre)" >torn/model.safetensors
refused 'torn/model.safetensors' sft --model torn --data sft.jsonl
run 0 sft $fast --model bare --data sft.jsonl --out x --help
printf '{"prompt_ids": [1, 2], "completion_ids": [3, 4, 5]}\n{"prompt_ids": [1], "completion_ids": [7]}\n' >ids.jsonl
run 0 sft $fast --model bare --data ids.jsonl --out ids_only; has ids_only/config.json

# ---- over-long rows ----
awk 'BEGIN {
    for (i = 0; i < 200; i++) long = long " yellow"
    print "{\"prompt\": \"Name it:\", \"completion\": \"" long "\"}"
    print "{\"prompt\": \"" long "\", \"completion\": \" red\"}"
}' >long.jsonl
cat long.jsonl sft.jsonl >some_long.jsonl
run 0 sft $fast --model pre --data some_long.jsonl --out long; says '1 .*cut'; says '1 .*dropped'
run 1 sft $fast --model pre --data some_long.jsonl --out strict --strict; gone strict strict.partial
sed -n 2p long.jsonl >none.jsonl; refused 'none.jsonl|no row|dropped|nothing' sft --model pre --data none.jsonl

# ---- generate, logprob, score ----
run 0 generate $one --model sft --data prompts.jsonl -n 3 --max-tokens 8 --seed 5; rows out 18
fields out completion completion_ids sample logprob sampling_logprob truncated prompt id
check "unknown fields are kept verbatim" grep -q '"extra": {"a": \[1, "\\u00e9"\]}' out
cp out samples.jsonl; silent
run 0 generate $one --model sft --data prompts.jsonl -n 3 --max-tokens 8 --seed 5 --threads 3 --out file.jsonl
same file.jsonl samples.jsonl
run 1 generate $one --model sft --data prompts.jsonl --max-tokens 8 --out file.jsonl; says 'file.jsonl.*already'
run 0 generate $one --model sft --data prompts.jsonl -n=3 --max-tokens=8 --seed=5 --out=file.jsonl --overwrite
same file.jsonl samples.jsonl
run 0 generate $one --model sft --prompt "Name the color 1:" --temperature 0 --top-k 5 --top-p 0.9; rows out 1
run 0 generate $one --model a_dt --data prompts.jsonl --max-tokens 4 --target-reward q0.9; rows out 6
run 0 generate $one --model a_dt --data prompts.jsonl --max-tokens 4 --target-reward none; rows out 6
run 0 generate $one --model a_bins --data prompts.jsonl --max-tokens 4 --target-reward 0.5 --guidance 1; rows out 6
run 0 generate $one --model a_dt --data prompts.jsonl --max-tokens 4 --target-reward 400; says 'range|clamp'
with="--model sft --data prompts.jsonl -n 3 --max-tokens 8 --seed 5"
run 0 generate $one $with --kv-mb 0.01; same out samples.jsonl
run 1 generate $one $with --kv-mb 0.0001 --out few.jsonl; says 'kv_bytes'; gone few.jsonl
run 0 generate $one $with --min-p 1 --repetition-penalty 1.2 --top-p 0.9; rows out 18
run 0 generate $one $with --temperature 2 --stop o '\n'; rows out 18
check "a stop string is in a completion" eval '! grep -Eq "\"completion\": \"[^\"]*(o|\\\\n)" out'
check "no response was stopped" grep -q '"truncated": false' out
run 0 generate $one $with --temperature 2 --forbid e 7 --forbid=8
check "a forbidden token was drawn" eval '! grep -Eq "completion_ids[^]]*[[ ](7|8)[],]" out'
run 2 generate $one $with --forbid 'no such token'; says 'is not one token of'
for bad in '--min-p 2' '--min-p -1' '--repetition-penalty 0' '--temperature -1' '-n 0' '--top-p 0' '--forbid 9999'; do
    run 1 generate $one $with $bad --out few.jsonl; gone few.jsonl
done
run 2 generate $one $with --temperature nan --out few.jsonl; gone few.jsonl
run 0 logprob $one --model sft --data samples.jsonl; rows out 18; fields out logprob tokens; cp out logprobs.jsonl
number() { sed "s/.*\"$2\": *\([-0-9.e]*\).*/\1/" "$1"; }
number samples.jsonl logprob >x; number logprobs.jsonl logprob >y
paste x y | awk '{ d = $1 - $2; if (d * d > 1e-6) bad = 1 } END { exit bad }'
check "logprob is not what generate said" [ $? -eq 0 ]
run 0 logprob $one --model sft --data samples.jsonl --per-token; fields out logprobs
awk -F'"logprobs": \\[' '{
    split($2, part, "]")
    n = split(part[1], t, ", ")
    sum = 0
    for (i = 1; i <= n; i++) sum += t[i]
    print sum, n
}' out >sums
number logprobs.jsonl tokens >z
paste y sums z | awk '{ d = $1 - $2; if (d * d > 1e-6 || $3 != $4) bad = 1 } END { exit bad }'
check "logprobs do not add up to logprob" [ $? -eq 0 ]
run 0 score $one --rm rm --data samples.jsonl --out scored.jsonl; rows scored.jsonl 18
fields scored.jsonl reward reward_raw id
run 0 score $one --rm rm --data pairs.jsonl
fields out chosen_reward rejected_reward chosen_reward_raw rejected_reward_raw topic; says 'accuracy'
run 1 score $one --rm sft --data samples.jsonl; says 'sft'
run 0 align $fast --method rwr --model sft --data scored.jsonl --out a_scored
last="orl score --data - < samples.jsonl"; "$ORL" score $one --rm rm --data - <samples.jsonl >out 2>err
same out scored.jsonl

# ---- chat ----
chat() { # chat LINES OPTIONS…
    printf "$1" >lines
    shift
    last="orl chat $*"
    "$ORL" chat --threads 1 "$@" <lines >out 2>err
    status=$?
    check "chat: status $status" [ $status -eq 0 ]
}
chat 'Name the color 1:\n\nAgain.\n/reset\nName the color 1:\n' --model sft --temperature 0 --max-tokens 6 --stop '\n'
rows out 3
check "it does not begin anew" [ "$(sed -n 1p out)" = "$(sed -n 3p out)" ]; cp out first
chat 'Name the color 1:\n/quit\nAgain.\n' --model sft --temperature 0 --max-tokens 6 --stop '\n' --quiet; rows out 1
check "the first answer is another" [ "$(cat out)" = "$(sed -n 1p first)" ]; silent
chat 'One.\nTwo.\nThree.\nFour.\nFive.\n' --model sft --max-tokens 6; says 'context of 64 tokens is full.*left out'
awk 'BEGIN { for (i = 0; i < 200; i++) printf "yellow "; print ""; print "Name it."; print "\377\"\\" }' >lines
chat "$(cat lines)\n" --model sft --max-tokens 4; says 'shorten the message'
chat 'Name a color.\nAgain.\n' --model chatsft --system 'Be brief.' --max-tokens 5 --temperature 0.5 --min-p 0.1
chat 'Name a color.\n' --model a_dt --target-reward 0.5 --template llama2 --max-tokens 5
chat '' --model sft; rows out 0
run 1 chat $one --model bare; says 'tokenizer'
run 1 chat $one --model rm; says 'reward model'
run 2 chat $one --model sft --prompt x; says 'belongs to orl generate'
mkfifo talk
run 0 init --arch llama --tokenizer tok --layers 1 --dim 16 --heads 2 --ctx 60000 --out long_winded
last='orl chat, two SIGINTs'
"$ORL" chat $one --model long_winded --forbid 0 <talk >out 2>err &
pid=$!
exec 9>talk
for answer in 1 2; do # the first ends an answer, the second the program, which waits for a line
    [ $answer -eq 1 ] && echo 'Talk.' >&9
    tries=0
    until [ -s out ] || [ $tries -ge 500 ]; do sleep 0.02; tries=$((tries + 1)); done
    sleep 0.2
    kill -INT $pid 2>/dev/null
    sleep 0.3
    [ $answer -eq 1 ] && check "the first SIGINT ended the program" kill -0 $pid
done
exec 9>&-
wait $pid
status=$?
check "status $status instead of 130" [ $status -eq 130 ]

# ---- eval, the ledger ----
run 0 generate $one --model sft --data prompts.jsonl -n 4 --max-tokens 8 --out l1.jsonl --ledger ledger.jsonl
run 0 score $one --rm rm --data l1.jsonl --out l2.jsonl --ledger ledger.jsonl
run 0 align $fast --quiet --method rwr --model sft --data l2.jsonl --out runs/rwr --ledger ledger.jsonl
run 0 align $ppo --quiet --method ppo --model sft --rm rm --data prompts.jsonl --out runs/ppo --ledger ledger.jsonl
run 0 eval $one --model sft runs/rwr a_dt runs/ppo --data prompts.jsonl --rm rm -n 2 --max-tokens 8 --best-of 3 \
    --ledger ledger.jsonl --out cmp
prints 'rwr'; prints 'ppo'; prints 'best_of_3'
has cmp/results.jsonl cmp/report.html; gone cmp.partial; rows cmp/results.jsonl 5
fields cmp/results.jsonl method seed reward win_rate win_rate_lo win_rate_hi kl length distinct2
fields cmp/results.jsonl train_flops data_flops percent_of_ppo percent_of_ppo_total
check "PPO is not 100 % of PPO" eval 'grep "\"ppo\"" cmp/results.jsonl | grep -Eq "\"percent_of_ppo\": ?100[,.}]"'
check "RWR's data cost nothing" eval 'grep "\"rwr\"" cmp/results.jsonl | grep -Eq "\"data_flops\": ?[1-9]"'
check "the report needs the network" eval '! grep -Eq "(src|href)=\"https?:" cmp/report.html'
run 0 eval $one --model sft a_mle --data prompts.jsonl --rm rm --max-tokens 8; prints 'a_mle'
run 1 eval $one --model sft nowhere --data prompts.jsonl --rm rm --out cmp2; says 'nowhere'; gone cmp2 cmp2.partial

# ---- import: a file in llama2.c's format, all zeros: width 8, one layer, 259 tokens, context 16 ----
{
    printf '\010\0\0\0\020\0\0\0\001\0\0\0\002\0\0\0\002\0\0\0\003\001\0\0\020\0\0\0'
    head -c 11200 /dev/zero
} >zero.bin
{
    printf '\007\0\0\0\0\0\0\0\005\0\0\0<unk>\0\0\0\0\005\0\0\0\n<s>\n\0\0\0\0\006\0\0\0\n</s>\n'
    i=0
    while [ $i -lt 256 ]; do printf '\0\0\0\0\006\0\0\0<0x%02X>' $i; i=$((i + 1)); done
} >zero.tok
run 0 import --llama2c zero.bin --tokenizer zero.tok --out imported --quiet
has imported/config.json imported/model.safetensors imported/tokenizer.json
run 0 generate $one --model imported --prompt red --max-tokens 3; rows out 1
head -c 5000 zero.bin >torn.bin
run 1 import --llama2c torn.bin --tokenizer zero.tok --out imported2; says 'torn.bin'; gone imported2 imported2.partial
run 1 import --llama2c zero.bin --tokenizer missing.tok --out imported2; says 'missing.tok'
gone imported2 imported2.partial

echo "test_tool: $passed passed, $failed failed"
[ $failed -eq 0 ]
