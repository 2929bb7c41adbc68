# shellcheck shell=bash
# Manifests for GKE: a JobSet for each shard, and the Kueue queue that they wait in.
#
# A host that exits with 42, or whose node is taken away, gets a new pod within the same Job, at no cost. Exit code 2 fails
# the Job by a rule of its podFailurePolicy, and that fails the JobSet. Any other code fails the Job by its backoffLimit of
# 0, and then the JobSet makes all pods of the slice anew, at most maxRestarts times.

readonly CLOUD_CLI_IMAGE=gcr.io/google.com/cloudsdktool/google-cloud-cli:slim # copies compiled programs
readonly PROGRAM_FOLDER=/gpicl-programs                                       # in a container

# jobset_manifest SHARD
jobset_manifest() {
  local id arguments=("${ARGUMENTS[@]}")
  id=$(slice_id "$1")
  if [[ ${arguments[0]} == sweep ]]; then arguments+=(--shard "$1/$NUM_SLICES"); fi
  if ((${#FILES[@]})); then _config_map "$id"; fi
  cat << END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $id
  namespace: $NAMESPACE
  labels:
    kueue.x-k8s.io/queue-name: $QUEUE
    gpicl-launch: $NAME
    gpicl-digest: "$DIGEST"
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  failurePolicy:
    maxRestarts: $MAX_RESTARTS
    restartStrategy: BlockingRecreate
    rules:
      - name: wrongUsage
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: $HOSTS
          parallelism: $HOSTS
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: gpicl
                  operator: In
                  values: [2]
              - action: Ignore
                onExitCodes:
                  containerName: gpicl
                  operator: In
                  values: [42]
              - action: Ignore
                onPodConditions:
                  - type: DisruptionTarget
                    status: "True"
          template:
            metadata:
              labels:
                gpicl-launch: $NAME
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120
$(_service_account)
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $GKE_ACCELERATOR
                cloud.google.com/gke-tpu-topology: $TOPOLOGY
$(_spot_selector)
              tolerations:
                - key: google.com/tpu
                  operator: Exists
                  effect: NoSchedule
$(_program_copiers)
              containers:
                - name: gpicl
                  image: $(json_string "$IMAGE")
                  command: ["gpicl"]
                  args: $(container_arguments "${arguments[@]}")
                  env:
                    - name: JAX_COMPILATION_CACHE_DIR
                      value: $(container_value "$(_program_folder)")
$(_data_dir)
$(_coordinator_port)
                  ports:
                    - containerPort: ${COORDINATOR_PORT:-8482}
                  resources:
                    requests:
                      google.com/tpu: $CHIPS_PER_HOST
                    limits:
                      google.com/tpu: $CHIPS_PER_HOST
$(_mounts)
$(_volumes "$id")
END
}

# Of variables, like of arguments, Kubernetes replaces $(NAME).
container_value() { json_string "${1//\$/\$\$}"; }

# The queue, for a cluster that has none of this name: as many chips as may be in use at once.
kueue_manifest() {
  cat << END
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata:
  name: $QUEUE-$GKE_ACCELERATOR-$TOPOLOGY
spec:
  nodeLabels:
    cloud.google.com/gke-tpu-accelerator: $GKE_ACCELERATOR
    cloud.google.com/gke-tpu-topology: $TOPOLOGY
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata:
  name: $QUEUE
spec:
  namespaceSelector: {}
  queueingStrategy: BestEffortFIFO
  resourceGroups:
    - coveredResources: [google.com/tpu]
      flavors:
        - name: $QUEUE-$GKE_ACCELERATOR-$TOPOLOGY
          resources:
            - name: google.com/tpu
              nominalQuota: $((CHIPS * MAX_PARALLEL))
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata:
  name: $QUEUE
  namespace: $NAMESPACE
spec:
  clusterQueue: $QUEUE
END
}

_service_account() {
  if [[ -n $SERVICE_ACCOUNT ]]; then
    printf '              serviceAccountName: %s' "$(json_string "$SERVICE_ACCOUNT")"
  fi
}

_spot_selector() {
  if [[ -n $SPOT ]]; then printf '                cloud.google.com/gke-spot: "true"'; fi
}

_data_dir() {
  [[ -n $DATA_DIR ]] || return 0
  printf '                    - name: TFDS_DATA_DIR\n                      value: %s' "$(container_value "$DATA_DIR")"
}

_coordinator_port() {
  [[ -n $COORDINATOR_PORT ]] || return 0
  printf '                    - name: JAX_COORDINATOR_PORT\n                      value: "%s"' "$COORDINATOR_PORT"
}

# The user's own gin files, as binary data: their names may hold slashes, keys may not.
_config_map() {
  local i
  cat << END
apiVersion: v1
kind: ConfigMap
metadata:
  name: $1-files
  namespace: $NAMESPACE
  labels:
    gpicl-launch: $NAME
binaryData:
END
  for ((i = 0; i < ${#FILES[@]}; i += 2)); do printf '  file-%d: "%s"\n' "$((i / 2))" "${FILES[i + 1]}"; done
  printf -- '---\n'
}

# Where gpicl keeps compiled programs: in the pod where the working folder is on gs://, since every compilation would wait
# for the bucket.
_program_folder() {
  if is_remote "$WORKDIR"; then printf '%s' "$PROGRAM_FOLDER"; else printf '%s' "$WORKDIR/.launch/compilation_cache"; fi
}

# One container copies programs into the pod before gpicl starts. Another one, which runs beside gpicl and ends after it,
# copies them back every five minutes and at the end, on host 0 alone: only there does JAX write programs.
_program_copiers() {
  is_remote "$WORKDIR" || return 0
  cat << END
              initContainers:
                - name: fetch-programs
                  image: $CLOUD_CLI_IMAGE
                  command: ["bash", "-c"]
                  args:
                    - |
                      gcloud storage rsync --quiet --recursive "\$STORED" $PROGRAM_FOLDER || true
$(_copier_settings)
                - name: store-programs
                  image: $CLOUD_CLI_IMAGE
                  restartPolicy: Always
                  command: ["bash", "-c"]
                  args:
                    - |
                      store() {
                        [[ \$JOB_COMPLETION_INDEX != 0 ]] \\
                          || gcloud storage rsync --quiet --recursive $PROGRAM_FOLDER "\$STORED" || true
                      }
                      trap 'store; exit 0' TERM
                      while true; do
                        sleep 300 & wait "\$!"
                        store
                      done
$(_copier_settings)
END
}

_copier_settings() {
  cat << END
                  env:
                    - name: STORED
                      value: $(container_value "$WORKDIR/.launch/compilation_cache")
                  volumeMounts:
                    - name: programs
                      mountPath: $PROGRAM_FOLDER
END
}

_mounts() {
  if ((${#FILES[@]})); then printf '                  workingDir: /gpicl\n'; fi
  _any_volume || return 0
  printf '                  volumeMounts:\n'
  if is_remote "$WORKDIR"; then
    printf '                    - name: programs\n                      mountPath: %s\n' "$PROGRAM_FOLDER"
  fi
  ((${#FILES[@]})) || return 0
  cat << END
                    - name: files
                      mountPath: /gpicl
                      readOnly: true
END
}

_volumes() {
  local i
  _any_volume || return 0
  printf '              volumes:\n'
  if is_remote "$WORKDIR"; then printf '                - name: programs\n                  emptyDir: {}\n'; fi
  ((${#FILES[@]})) || return 0
  cat << END
                - name: files
                  configMap:
                    name: $1-files
                    items:
END
  for ((i = 0; i < ${#FILES[@]}; i += 2)); do
    printf '                      - key: file-%d\n                        path: %s\n' "$((i / 2))" "$(json_string "${FILES[i]}")"
  done
}

_any_volume() { ((${#FILES[@]})) || is_remote "$WORKDIR"; }
