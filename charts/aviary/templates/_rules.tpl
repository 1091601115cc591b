{{/* Generated: UPDATE_GENERATED=1 cargo test -p aviary */}}
{{- define "aviary.rules" }}
# the canaries themselves; patched for the finalizer of revertOnDeletion only
- apiGroups: ["flagger.app"]
  resources: ["canaries"]
  verbs: ["get", "list", "watch", "patch"]
# phase, weights and conditions of a canary
- apiGroups: ["flagger.app"]
  resources: ["canaries/status"]
  verbs: ["update"]
# owner references that block deletion, where the admission plugin OwnerReferencesPermissionEnforcement is on
- apiGroups: ["flagger.app"]
  resources: ["canaries/finalizers"]
  verbs: ["update"]
# the same of Steerer, where the cluster has them
- apiGroups: ["apps.weave.works"]
  resources: ["rollouts"]
  verbs: ["get", "list", "watch"]
# phase, weights and conditions of a rollout
- apiGroups: ["apps.weave.works"]
  resources: ["rollouts/status"]
  verbs: ["update"]
# the BirdWatches themselves; one is deleted where delete_on_success asks for that
- apiGroups: ["otomato.link"]
  resources: ["birdwatches"]
  verbs: ["get", "list", "watch", "delete"]
# phase, weight and baseline of a BirdWatch
- apiGroups: ["otomato.link"]
  resources: ["birdwatches/status"]
  verbs: ["update"]
# queries that canaries refer to
- apiGroups: ["flagger.app"]
  resources: ["metrictemplates"]
  verbs: ["list", "watch"]
# channels that canaries refer to
- apiGroups: ["flagger.app"]
  resources: ["alertproviders"]
  verbs: ["list", "watch"]
# targets are scaled, primaries are created and updated
- apiGroups: ["apps"]
  resources: ["deployments"]
  verbs: ["get", "list", "watch", "create", "patch"]
# the same for targets of this kind
- apiGroups: ["apps"]
  resources: ["daemonsets"]
  verbs: ["get", "list", "watch", "create", "patch"]
# the services of a canary: apex, primary and canary
- apiGroups: [""]
  resources: ["services"]
  verbs: ["get", "list", "watch", "create", "patch"]
# configs of the target are tracked, and copied for the primary
- apiGroups: [""]
  resources: ["configmaps"]
  verbs: ["get", "list", "watch", "create", "patch"]
# the same for secrets; credentials of metric templates and addresses of alert providers
- apiGroups: [""]
  resources: ["secrets"]
  verbs: ["get", "list", "watch", "create", "patch"]
# the autoscaler of the target, and its copy for the primary
- apiGroups: ["autoscaling"]
  resources: ["horizontalpodautoscalers"]
  verbs: ["get", "list", "watch", "create", "patch"]
# the same for KEDA; the target's is paused while it has no pods
- apiGroups: ["keda.sh"]
  resources: ["scaledobjects"]
  verbs: ["get", "list", "watch", "create", "patch"]
# what happens to a canary is told in events of its namespace; repeated ones are counted
- apiGroups: [""]
  resources: ["events"]
  verbs: ["create", "patch"]
{{- if or (empty .Values.rbac.providers) (has "istio" .Values.rbac.providers) }}
# the routes of a canary
- apiGroups: ["networking.istio.io"]
  resources: ["virtualservices"]
  verbs: ["get", "list", "watch", "create", "patch"]
{{- end }}
{{- if or (empty .Values.rbac.providers) (has "istio" .Values.rbac.providers) }}
# traffic policies of primary and canary
- apiGroups: ["networking.istio.io"]
  resources: ["destinationrules"]
  verbs: ["get", "list", "watch", "create", "patch"]
{{- end }}
{{- if or (empty .Values.rbac.providers) (has "smi:crossover" .Values.rbac.providers) (has "smi:v1alpha1" .Values.rbac.providers) (has "smi:v1alpha2" .Values.rbac.providers) (has "smi:v1alpha3" .Values.rbac.providers) }}
# the routes of a canary, in whatever version
- apiGroups: ["split.smi-spec.io"]
  resources: ["trafficsplits"]
  verbs: ["get", "list", "watch", "create", "patch"]
{{- end }}
{{- end }}

{{- define "aviary.leaderElectionRules" }}
# the Lease of the leader, which the first replica creates; creation cannot be limited to a name
- apiGroups: ["coordination.k8s.io"]
  resources: ["leases"]
  verbs: ["create"]
# renewed by the leader, watched by the others
- apiGroups: ["coordination.k8s.io"]
  resources: ["leases"]
  resourceNames: ["flagger-leader-election"]
  verbs: ["get", "list", "watch", "update"]
# who became leader is told in an event of the Lease
- apiGroups: [""]
  resources: ["events"]
  verbs: ["create"]
{{- end }}
