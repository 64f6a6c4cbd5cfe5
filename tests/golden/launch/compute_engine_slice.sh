# Checks the config.
PYTHON -m prompt_tuning train --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --tfds_data_dir= --dry_run

# Checks that it fits into tpu7x:2x2x2.
PYTHON -m prompt_tuning plan --topology=tpu7x:2x2x2 --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --format=json

# Checks the project.
gcloud projects describe my-project '--format=value(lifecycleState)'

# Checks that the bucket can be written.
gcloud storage cp - 'gs://my-bucket/a run/.launch_probe' --project=my-project <<'END_OF_INPUT'
ok
END_OF_INPUT

# Removes what it wrote.
gcloud storage rm 'gs://my-bucket/a run/.launch_probe' --project=my-project

# Checks that us-central1-c offers tpu7x:2x2x2.
gcloud compute machine-types describe tpu7x-standard-4t --project=my-project --zone=us-central1-c

# Packs the checkout.
PYTHON -m pip wheel --quiet --no-deps --wheel-dir=HOME/.cache/prompt_tuning/launch CHECKOUT

# Describes the topology of the slice.
gcloud compute resource-policies create workload-policy xxl --project=my-project --region=us-central1 --type=HIGH_THROUGHPUT --accelerator-topology=2x2x2

# Describes its VMs.
gcloud compute instance-templates create xxl --project=my-project --instance-template-region=us-central1 --machine-type=tpu7x-standard-4t --image-family=ubuntu-accel-2404-amd64-tpu-tpu7x --image-project=ubuntu-os-accelerator-images --boot-disk-size=200GB --maintenance-policy=TERMINATE --scopes=cloud-platform --boot-disk-type=hyperdisk-balanced

# Creates the group, empty.
gcloud compute instance-groups managed create xxl --project=my-project --zone=us-central1-c --size=0 --template=projects/my-project/regions/us-central1/instanceTemplates/xxl --workload-policy=projects/my-project/regions/us-central1/resourcePolicies/xxl --target-size-policy-mode=bulk --default-action-on-vm-failure=do-nothing

# Fills it with 2 VMs, all or none; from here on they cost.
gcloud compute instance-groups managed resize xxl --project=my-project --zone=us-central1-c --size=2

# Asks until all are RUNNING.
gcloud compute instance-groups managed list-instances xxl --project=my-project --zone=us-central1-c '--format=value(instanceStatus)'

# Asks for the names of the VMs, which stand below as xxl-vm0, xxl-vm1.
gcloud compute instance-groups managed list-instances xxl --project=my-project --zone=us-central1-c '--format=value(instance.basename())'

# Makes a folder on the machine.
gcloud compute ssh xxl-vm0 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=mkdir -p prompt_tuning_launch'

# Makes a folder on the machine.
gcloud compute ssh xxl-vm1 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=mkdir -p prompt_tuning_launch'

# Copies prompt-tuning to the machine.
gcloud compute scp CHECKOUT/launch/setup.sh CHECKOUT/launch/run.sh CHECKOUT/constraints.txt HOME/.cache/prompt_tuning/launch/prompt_tuning-0.1.0-py3-none-any.whl xxl-vm0:prompt_tuning_launch/ --project=my-project --zone=us-central1-c --scp-flag=-oServerAliveInterval=30 --scp-flag=-oServerAliveCountMax=4 --internal-ip

# Copies prompt-tuning to the machine.
gcloud compute scp CHECKOUT/launch/setup.sh CHECKOUT/launch/run.sh CHECKOUT/constraints.txt HOME/.cache/prompt_tuning/launch/prompt_tuning-0.1.0-py3-none-any.whl xxl-vm1:prompt_tuning_launch/ --project=my-project --zone=us-central1-c --scp-flag=-oServerAliveInterval=30 --scp-flag=-oServerAliveCountMax=4 --internal-ip

# Installs prompt-tuning.
gcloud compute ssh xxl-vm0 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=bash prompt_tuning_launch/setup.sh prompt_tuning-0.1.0-py3-none-any.whl'

# Installs prompt-tuning.
gcloud compute ssh xxl-vm1 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=bash prompt_tuning_launch/setup.sh prompt_tuning-0.1.0-py3-none-any.whl'

# Starts the run.
gcloud compute ssh xxl-vm0 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=bash prompt_tuning_launch/run.sh start 3 143 train --gin_file=models/t5_1_1_xxl_prompt.gin '"'"'--gin.MODEL_DIR='"'"'"'"'"'"'"'"'gs://my-bucket/a run'"'"'"'"'"'"'"'"''"'"' '"'"'--gin.TASK_FEATURE_LENGTHS={'"'"'"'"'"'"'"'"'inputs'"'"'"'"'"'"'"'"': 512, '"'"'"'"'"'"'"'"'targets'"'"'"'"'"'"'"'"': 8}'"'"' '"'"'--gin.CLASS_LABELS=["it'"'"'"'"'"'"'"'"'s", '"'"'"'"'"'"'"'"'say "hi"'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'a\\b'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'* ~ ! # ; & | < > %s'"'"'"'"'"'"'"'"']'"'"' '"'"'--gin.SENTENCE='"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"'two
lines,  two  spaces '"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"' '"'"'--gin_bindings=NAME = "é"'"'"' --tfds_data_dir='

# Starts the run.
gcloud compute ssh xxl-vm1 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=bash prompt_tuning_launch/run.sh start 3 143 train --gin_file=models/t5_1_1_xxl_prompt.gin '"'"'--gin.MODEL_DIR='"'"'"'"'"'"'"'"'gs://my-bucket/a run'"'"'"'"'"'"'"'"''"'"' '"'"'--gin.TASK_FEATURE_LENGTHS={'"'"'"'"'"'"'"'"'inputs'"'"'"'"'"'"'"'"': 512, '"'"'"'"'"'"'"'"'targets'"'"'"'"'"'"'"'"': 8}'"'"' '"'"'--gin.CLASS_LABELS=["it'"'"'"'"'"'"'"'"'s", '"'"'"'"'"'"'"'"'say "hi"'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'a\\b'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'* ~ ! # ; & | < > %s'"'"'"'"'"'"'"'"']'"'"' '"'"'--gin.SENTENCE='"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"'two
lines,  two  spaces '"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"' '"'"'--gin_bindings=NAME = "é"'"'"' --tfds_data_dir='

# Shows the run until it has ended.
gcloud compute ssh xxl-vm0 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=bash prompt_tuning_launch/run.sh follow'

# Asks how it ended.
gcloud compute ssh xxl-vm0 --project=my-project --zone=us-central1-c --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --internal-ip '--command=bash prompt_tuning_launch/run.sh status'

# Removes the TPUs; from here on they cost nothing.
gcloud compute instance-groups managed delete xxl --project=my-project --zone=us-central1-c --quiet

# Removes the description of its VMs.
gcloud compute instance-templates delete xxl --project=my-project --region=us-central1 --quiet

# Removes the policy.
gcloud compute resource-policies delete xxl --project=my-project --region=us-central1 --quiet

# A machine that is taken away is removed, created again and given the same commands;
# the run goes on from its last save.
