#!/usr/bin/env bash
# How v0_1/ was written, at commit e126b3f, before the package got its rooms: run from the root of a clone of that
# commit, with an output folder. (families/ came from ten steps of Adam on twelve random rows, one model a family.)
set -euo pipefail
cd "$1"
python "$OLDPWD"/training/extract_activations.py --backbone scenes --dataset scenes:train:160 \
    --hook_point image_embeds --output_dir embeddings
python "$OLDPWD"/training/train_msae.py --train_data embeddings --eval_data embeddings --output_dir run \
    --num_latents 64 --nesting_ks 8 16 64 --num_train_epochs 6 --per_device_train_batch_size 32 \
    --learning_rate 1e-3 --seed 42 --save_steps 10
rm -r run/checkpoint-30
hf-msae name run --vocabulary scenes --data embeddings
hf-msae search run --data embeddings --find red --index_dir index
hf-msae explain run --text "a red circle" --output_file explanation.json
