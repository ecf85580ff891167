{{- define "labels" -}}
app.kubernetes.io/name: {{ .Values.component | replace "server" "skipserve" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "image" -}}
{{- $repository := .Values.image.repository -}}
{{- $tag := .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion (.Values.settings.device | replace "auto" "cuda")) -}}
{{- contains "@" $repository | ternary $repository (printf "%s:%s" $repository $tag) -}}
{{- end }}

{{- /* The settings as variables of the environment; those that are null are not set. */ -}}
{{- define "settings" -}}
{{- /* The names that an endpoint picker reads. */ -}}
{{- $aliases := .Values.inferencePool.enabled | ternary (dict "metric_aliases" "vllm") dict }}
{{- range $name, $value := merge dict .Values.settings $aliases }}
{{- if not (kindIs "invalid" $value) }}
SKIPSERVE_{{ upper $name }}: {{ (kindIs "float64" $value | ternary (toJson $value) (toString $value)) | quote }}
{{- end }}
{{- end }}
SKIPSERVE_POLICIES: /etc/skipserve/policies.yaml
{{- end }}

{{- define "policies" -}}
# Skip policies of your own: a mapping from names to policies, as in the shipped catalog.
#
# my-policy:
#   description: Every 3rd block after the middle (of 32 blocks 18, 21, 24, 27, 30) is skipped for generated tokens.
#   rules:
#     - {action: skip_block, layers: {start: 50%, interval: 3}, scope: generated}
{{- with .Values.policies }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "unprivileged" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}
