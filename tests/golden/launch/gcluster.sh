# Checks the config.
PYTHON -m prompt_tuning train --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --tfds_data_dir= --dry_run

# Checks that it fits into tpu7x:2x2x1.
PYTHON -m prompt_tuning plan --topology=tpu7x:2x2x1 --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --format=json

# Checks the project.
gcloud projects describe my-project '--format=value(lifecycleState)'

# Checks that the bucket can be written.
gcloud storage cp - 'gs://my-bucket/a run/.launch_probe' --project=my-project <<'END_OF_INPUT'
ok
END_OF_INPUT

# Removes what it wrote.
gcloud storage rm 'gs://my-bucket/a run/.launch_probe' --project=my-project

# Hands the run to the cluster, which runs it on tpu7x:2x2x1; from here on it costs.
gcluster job submit --project=my-project --cluster=my-cluster --location=us-east5 --name=xxl --image=my-registry/image --compute-type=tpu7x-standard-4t --topology=2x2x1 --restarts=100 --restart-on-exit-codes=143,137,134 --grace-period=60s --gke-disable-parallel-containers --gke-nap-provisioning=spot '--command=prompt-tuning train --gin_file=models/t5_1_1_xxl_prompt.gin '"'"'--gin.MODEL_DIR='"'"'"'"'"'"'"'"'gs://my-bucket/a run'"'"'"'"'"'"'"'"''"'"' '"'"'--gin.TASK_FEATURE_LENGTHS={'"'"'"'"'"'"'"'"'inputs'"'"'"'"'"'"'"'"': 512, '"'"'"'"'"'"'"'"'targets'"'"'"'"'"'"'"'"': 8}'"'"' '"'"'--gin.CLASS_LABELS=["it'"'"'"'"'"'"'"'"'s", '"'"'"'"'"'"'"'"'say "hi"'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'$$HOME $$(HOME) $$$$ $${HOME} `id`'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'a\\b'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'* ~ ! # ; & | < > %s'"'"'"'"'"'"'"'"']'"'"' '"'"'--gin.SENTENCE='"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"'two
lines,  two  spaces '"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"'"'"'"'"'"'"''"'"' '"'"'--gin_bindings=NAME = "é"'"'"' --tfds_data_dir='

# Shows its output.
gcluster job logs xxl --project=my-project --cluster=my-cluster --location=us-east5

# Stops it.
gcluster job cancel xxl --project=my-project --cluster=my-cluster --location=us-east5

