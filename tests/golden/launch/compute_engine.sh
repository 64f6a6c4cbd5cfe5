# Checks the config.
PYTHON -m prompt_tuning train --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --tfds_data_dir= --dry_run

# Checks that it fits into v6e:2x4.
PYTHON -m prompt_tuning plan --topology=v6e:2x4 --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --format=json

# Checks the project.
gcloud projects describe my-project '--format=value(lifecycleState)'

# Checks that the bucket can be written.
gcloud storage cp - 'gs://my-bucket/a run/.launch_probe' --project=my-project <<'END_OF_INPUT'
ok
END_OF_INPUT

# Removes what it wrote.
gcloud storage rm 'gs://my-bucket/a run/.launch_probe' --project=my-project

# Checks that us-east5-a offers v6e:2x4.
gcloud compute machine-types describe ct6e-standard-8t --project=my-project --zone=us-east5-a

# Packs the checkout.
PYTHON -m pip wheel --quiet --no-deps --wheel-dir=HOME/.cache/prompt_tuning/launch CHECKOUT

# Creates a TPU v6e:2x4; from here on it costs.
gcloud compute instances create xxl --project=my-project --zone=us-east5-a --machine-type=ct6e-standard-8t --image-family=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e --image-project=ubuntu-os-accelerator-images --boot-disk-size=200GB --maintenance-policy=TERMINATE --scopes=cloud-platform --provisioning-model=SPOT --instance-termination-action=DELETE

# Asks until it is RUNNING.
gcloud compute instances describe xxl --project=my-project --zone=us-east5-a '--format=value(status)'

# Makes a folder on the machine.
gcloud compute ssh xxl --project=my-project --zone=us-east5-a --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=mkdir -p prompt_tuning_launch'

# Copies prompt-tuning to the machine.
gcloud compute scp CHECKOUT/launch/setup.sh CHECKOUT/launch/run.sh CHECKOUT/constraints.txt HOME/.cache/prompt_tuning/launch/prompt_tuning-0.1.0-py3-none-any.whl xxl:prompt_tuning_launch/ --project=my-project --zone=us-east5-a --scp-flag=-oServerAliveInterval=30 --scp-flag=-oServerAliveCountMax=4

# Installs prompt-tuning.
gcloud compute ssh xxl --project=my-project --zone=us-east5-a --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/setup.sh prompt_tuning-0.1.0-py3-none-any.whl'

# Starts the run.
gcloud compute ssh xxl --project=my-project --zone=us-east5-a --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/run.sh start 3 143 train --gin_file=models/t5_1_1_xxl_prompt.gin '"'"'--gin.MODEL_DIR='"'"'"'"'"'"'"'"'gs://my-bucket/a run'"'"'"'"'"'"'"'"''"'"' '"'"'--gin.TASK_FEATURE_LENGTHS={'"'"'"'"'"'"'"'"'inputs'"'"'"'"'"'"'"'"': 512, '"'"'"'"'"'"'"'"'targets'"'"'"'"'"'"'"'"': 8}'"'"' '"'"'--gin.CLASS_LABELS=["it'"'"'"'"'"'"'"'"'s", '"'"'"'"'"'"'"'"'say "hi"'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'a\\b'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'* ~ ! # ; & | < > %s'"'"'"'"'"'"'"'"']'"'"' '"'"'--gin.SENTENCE='"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"'two
lines,  two  spaces '"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"' '"'"'--gin_bindings=NAME = "é"'"'"' --tfds_data_dir='

# Shows the run until it has ended.
gcloud compute ssh xxl --project=my-project --zone=us-east5-a --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/run.sh follow'

# Asks how it ended.
gcloud compute ssh xxl --project=my-project --zone=us-east5-a --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 '--command=bash prompt_tuning_launch/run.sh status'

# Removes the TPU; from here on it costs nothing.
gcloud compute instances delete xxl --project=my-project --zone=us-east5-a --quiet

# A machine that is taken away is removed, created again and given the same commands;
# the run goes on from its last save.
