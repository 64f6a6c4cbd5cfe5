# Checks the config.
PYTHON -m prompt_tuning train --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --tfds_data_dir= --dry_run

# Checks that it fits into v4:2x2x2.
PYTHON -m prompt_tuning plan --topology=v4:2x2x2 --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --format=json

# Checks the project.
gcloud projects describe my-project '--format=value(lifecycleState)'

# Checks that the bucket can be written.
gcloud storage cp - 'gs://my-bucket/a run/.launch_probe' --project=my-project <<'END_OF_INPUT'
ok
END_OF_INPUT

# Removes what it wrote.
gcloud storage rm 'gs://my-bucket/a run/.launch_probe' --project=my-project

# Checks that us-central2-b offers v4:2x2x2.
gcloud compute tpus accelerator-types describe v4-16 --project=my-project --zone=us-central2-b

# Checks that us-central2-b offers v4:2x2x2.
gcloud compute tpus versions describe tpu-ubuntu2204-base --project=my-project --zone=us-central2-b

# Packs the checkout.
PYTHON -m pip wheel --quiet --no-deps --wheel-dir=HOME/.cache/prompt_tuning/launch CHECKOUT

# Asks for a TPU v4:2x2x2; it costs from when it is ACTIVE.
gcloud compute tpus queued-resources create xxl --project=my-project --zone=us-central2-b --node-id=xxl --accelerator-type=v4-16 --runtime-version=tpu-ubuntu2204-base --spot --network=my-network

# Asks for its state until it is ACTIVE.
gcloud compute tpus queued-resources describe xxl --project=my-project --zone=us-central2-b '--format=value(state.state)'

# Makes a folder on the machine.
gcloud compute tpus tpu-vm ssh xxl --project=my-project --zone=us-central2-b --worker=all --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=mkdir -p prompt_tuning_launch'

# Copies prompt-tuning to the machine.
gcloud compute tpus tpu-vm scp CHECKOUT/launch/setup.sh CHECKOUT/launch/run.sh CHECKOUT/constraints.txt HOME/.cache/prompt_tuning/launch/prompt_tuning-0.1.0-py3-none-any.whl xxl:prompt_tuning_launch/ --project=my-project --zone=us-central2-b --worker=all --scp-flag=-oServerAliveInterval=30 --scp-flag=-oServerAliveCountMax=4

# Installs prompt-tuning.
gcloud compute tpus tpu-vm ssh xxl --project=my-project --zone=us-central2-b --worker=all --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/setup.sh prompt_tuning-0.1.0-py3-none-any.whl'

# Starts the run.
gcloud compute tpus tpu-vm ssh xxl --project=my-project --zone=us-central2-b --worker=all --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/run.sh start 3 143 train --gin_file=models/t5_1_1_xxl_prompt.gin '"'"'--gin.MODEL_DIR='"'"'"'"'"'"'"'"'gs://my-bucket/a run'"'"'"'"'"'"'"'"''"'"' '"'"'--gin.TASK_FEATURE_LENGTHS={'"'"'"'"'"'"'"'"'inputs'"'"'"'"'"'"'"'"': 512, '"'"'"'"'"'"'"'"'targets'"'"'"'"'"'"'"'"': 8}'"'"' '"'"'--gin.CLASS_LABELS=["it'"'"'"'"'"'"'"'"'s", '"'"'"'"'"'"'"'"'say "hi"'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'a\\b'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'* ~ ! # ; & | < > %s'"'"'"'"'"'"'"'"']'"'"' '"'"'--gin.SENTENCE='"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"'two
lines,  two  spaces '"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"' '"'"'--gin_bindings=NAME = "é"'"'"' --tfds_data_dir='

# Shows the run until it has ended.
gcloud compute tpus tpu-vm ssh xxl --project=my-project --zone=us-central2-b --worker=0 --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/run.sh follow'

# Asks how it ended.
gcloud compute tpus tpu-vm ssh xxl --project=my-project --zone=us-central2-b --worker=0 --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/run.sh status'

# Removes the request and the TPU; from here on they cost nothing.
gcloud compute tpus queued-resources delete xxl --project=my-project --zone=us-central2-b --force --quiet

# A machine that is taken away is removed, created again and given the same commands;
# the run goes on from its last save.
