{{- define "echelon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s-operator" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "echelon.selectorLabels" -}}
app.kubernetes.io/name: echelon-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "echelon.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "echelon.selectorLabels" . }}
app.kubernetes.io/part-of: echelon
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "echelon.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "echelon.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The reference of an image: (dict "root" . "part" "runtime") */}}
{{- define "echelon.image" -}}
{{- $images := .root.Values.images -}}
{{- get $images .part | default (printf "%s/%s:%s" $images.registry .part (default .root.Chart.AppVersion $images.tag)) -}}
{{- end -}}

{{/*
What the operator does in a namespace that it watches, and no more: it deletes what is of one revision; what stands for the
object's whole life it patches, and Kubernetes collects it; of pods it deletes those whose node is lost; of PipelineDeployments it writes the status.
Events are read as core's and written as events.k8s.io's.
*/}}
{{- define "echelon.rules" -}}
- apiGroups: [echelon.dev]
  resources: [pipelinedeployments]
  verbs: [get, list, watch]
- apiGroups: [echelon.dev]
  resources: [pipelinedeployments/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims, events]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
