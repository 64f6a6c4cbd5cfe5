# Checks the config.
PYTHON -m prompt_tuning train --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --tfds_data_dir= --dry_run

# Checks that it fits into v6e:4x4.
PYTHON -m prompt_tuning plan --topology=v6e:4x4 --gin_file=models/t5_1_1_xxl_prompt.gin '--gin.MODEL_DIR='"'"'gs://my-bucket/a run'"'"'' '--gin.TASK_FEATURE_LENGTHS={'"'"'inputs'"'"': 512, '"'"'targets'"'"': 8}' '--gin.CLASS_LABELS=["it'"'"'s", '"'"'say "hi"'"'"', '"'"'$HOME $(HOME) $$ ${HOME} `id`'"'"', '"'"'a\\b'"'"', '"'"'* ~ ! # ; & | < > %s'"'"']' '--gin.SENTENCE='"'"''"'"''"'"'two
lines,  two  spaces '"'"''"'"''"'"'' '--gin_bindings=NAME = "é"' --format=json

# Checks the project.
gcloud projects describe my-project '--format=value(lifecycleState)'

# Checks that the bucket can be written.
gcloud storage cp - 'gs://my-bucket/a run/.launch_probe' --project=my-project <<'END_OF_INPUT'
ok
END_OF_INPUT

# Removes what it wrote.
gcloud storage rm 'gs://my-bucket/a run/.launch_probe' --project=my-project

# Makes the cluster known to kubectl.
gcloud container clusters get-credentials my-cluster --project=my-project --location=us-east5

# Checks that the cluster knows JobSets.
kubectl --context=gke_my-project_us-east5_my-cluster get crd jobsets.jobset.x-k8s.io --output=name

# Lets the cluster check the manifest.
kubectl --context=gke_my-project_us-east5_my-cluster apply --dry-run=server --filename=- <<'END_OF_INPUT'
{
  "apiVersion": "jobset.x-k8s.io/v1alpha2",
  "kind": "JobSet",
  "metadata": {
    "name": "xxl",
    "annotations": {
      "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
  },
  "spec": {
    "failurePolicy": {
      "maxRestarts": 3,
      "rules": [
        {
          "name": "takenAway",
          "action": "RestartJobSetAndIgnoreMaxRestarts",
          "onJobFailureReasons": [
            "PodFailurePolicy"
          ]
        }
      ]
    },
    "replicatedJobs": [
      {
        "name": "tpu",
        "replicas": 1,
        "template": {
          "spec": {
            "parallelism": 4,
            "completions": 4,
            "backoffLimit": 0,
            "podFailurePolicy": {
              "rules": [
                {
                  "action": "FailJob",
                  "onPodConditions": [
                    {
                      "type": "DisruptionTarget",
                      "status": "True"
                    }
                  ]
                },
                {
                  "action": "FailJob",
                  "onExitCodes": {
                    "containerName": "prompt-tuning",
                    "operator": "In",
                    "values": [
                      143
                    ]
                  }
                }
              ]
            },
            "template": {
              "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 60,
                "nodeSelector": {
                  "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
                  "cloud.google.com/gke-tpu-topology": "4x4",
                  "cloud.google.com/gke-spot": "true"
                },
                "containers": [
                  {
                    "name": "prompt-tuning",
                    "image": "my-registry/image",
                    "command": [
                      "prompt-tuning"
                    ],
                    "args": [
                      "train",
                      "--gin_file=models/t5_1_1_xxl_prompt.gin",
                      "--gin.MODEL_DIR='gs://my-bucket/a run'",
                      "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
                      "--gin.CLASS_LABELS=[\"it's\", 'say \"hi\"', '$$HOME $$(HOME) $$$$ $${HOME} `id`', 'a\\\\b', '* ~ ! # ; & | < > %s']",
                      "--gin.SENTENCE='''two\nlines,  two  spaces '''",
                      "--gin_bindings=NAME = \"\u00e9\"",
                      "--tfds_data_dir="
                    ],
                    "securityContext": {
                      "privileged": true
                    },
                    "resources": {
                      "limits": {
                        "google.com/tpu": 4
                      }
                    }
                  }
                ],
                "tolerations": [
                  {
                    "key": "cloud.google.com/gke-spot",
                    "operator": "Equal",
                    "value": "true",
                    "effect": "NoSchedule"
                  }
                ],
                "serviceAccountName": "trainer"
              }
            }
          }
        }
      }
    ]
  }
}
END_OF_INPUT

# Hands the run to the cluster, which runs it on ct6e-standard-4t; from here on it costs.
kubectl --context=gke_my-project_us-east5_my-cluster apply --filename=- <<'END_OF_INPUT'
{
  "apiVersion": "jobset.x-k8s.io/v1alpha2",
  "kind": "JobSet",
  "metadata": {
    "name": "xxl",
    "annotations": {
      "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
  },
  "spec": {
    "failurePolicy": {
      "maxRestarts": 3,
      "rules": [
        {
          "name": "takenAway",
          "action": "RestartJobSetAndIgnoreMaxRestarts",
          "onJobFailureReasons": [
            "PodFailurePolicy"
          ]
        }
      ]
    },
    "replicatedJobs": [
      {
        "name": "tpu",
        "replicas": 1,
        "template": {
          "spec": {
            "parallelism": 4,
            "completions": 4,
            "backoffLimit": 0,
            "podFailurePolicy": {
              "rules": [
                {
                  "action": "FailJob",
                  "onPodConditions": [
                    {
                      "type": "DisruptionTarget",
                      "status": "True"
                    }
                  ]
                },
                {
                  "action": "FailJob",
                  "onExitCodes": {
                    "containerName": "prompt-tuning",
                    "operator": "In",
                    "values": [
                      143
                    ]
                  }
                }
              ]
            },
            "template": {
              "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 60,
                "nodeSelector": {
                  "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
                  "cloud.google.com/gke-tpu-topology": "4x4",
                  "cloud.google.com/gke-spot": "true"
                },
                "containers": [
                  {
                    "name": "prompt-tuning",
                    "image": "my-registry/image",
                    "command": [
                      "prompt-tuning"
                    ],
                    "args": [
                      "train",
                      "--gin_file=models/t5_1_1_xxl_prompt.gin",
                      "--gin.MODEL_DIR='gs://my-bucket/a run'",
                      "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
                      "--gin.CLASS_LABELS=[\"it's\", 'say \"hi\"', '$$HOME $$(HOME) $$$$ $${HOME} `id`', 'a\\\\b', '* ~ ! # ; & | < > %s']",
                      "--gin.SENTENCE='''two\nlines,  two  spaces '''",
                      "--gin_bindings=NAME = \"\u00e9\"",
                      "--tfds_data_dir="
                    ],
                    "securityContext": {
                      "privileged": true
                    },
                    "resources": {
                      "limits": {
                        "google.com/tpu": 4
                      }
                    }
                  }
                ],
                "tolerations": [
                  {
                    "key": "cloud.google.com/gke-spot",
                    "operator": "Equal",
                    "value": "true",
                    "effect": "NoSchedule"
                  }
                ],
                "serviceAccountName": "trainer"
              }
            }
          }
        }
      }
    ]
  }
}
END_OF_INPUT

# Shows its output.
kubectl --context=gke_my-project_us-east5_my-cluster logs --follow --max-log-requests=64 --selector=jobset.sigs.k8s.io/jobset-name=xxl

# Stops it.
kubectl --context=gke_my-project_us-east5_my-cluster delete jobset xxl

