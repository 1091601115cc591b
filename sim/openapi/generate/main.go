// Reduces the OpenAPI v3 documents of Kubernetes to the kinds that the embedded cluster serves.
//
// Output: one line per definition, sorted by name, with three columns separated by tabs: the definition's name, its schema
// as compact JSON, and the Go types of its fields as JSON, which the documents do not tell (`?` behind a type: the field is
// left out of JSON when it is zero; `!`: it is a struct and never left out; before it the field's number in protobuf, with
// the number of the message around it where JSON inlines that, and behind an `@` the name of
// the inlined struct).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// roots lists the kinds of each document.
var roots = map[string][]string{
	"api__v1": {
		"Namespace", "Node", "Pod", "Service", "ConfigMap", "Secret", "Event", "Endpoints", "ServiceAccount", "PodTemplate",
		"ReplicationController", "ResourceQuota", "LimitRange", "PersistentVolumeClaim", "PersistentVolume", "Binding", "Eviction", "TokenRequest",
		"ComponentStatus",
	},
	"apis__admissionregistration.k8s.io__v1": {
		"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
		"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding",
	},
	"apis__certificates.k8s.io__v1":       {"CertificateSigningRequest"},
	"apis__apiregistration.k8s.io__v1":    {"APIService"},
	"apis__apps__v1":                      {"Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "ControllerRevision", "Scale"},
	"apis__autoscaling__v1":               {"HorizontalPodAutoscaler"},
	"apis__autoscaling__v2":               {"HorizontalPodAutoscaler"},
	"apis__batch__v1":                     {"Job", "CronJob"},
	"apis__coordination.k8s.io__v1":       {"Lease"},
	"apis__discovery.k8s.io__v1":          {"EndpointSlice"},
	"apis__events.k8s.io__v1":             {"Event"},
	"apis__apiextensions.k8s.io__v1":      {"CustomResourceDefinition"},
	"apis__authorization.k8s.io__v1":      {"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview", "LocalSubjectAccessReview"},
	"apis__authentication.k8s.io__v1":     {"SelfSubjectReview", "TokenReview"},
	"apis__policy__v1":                    {"PodDisruptionBudget"},
	"apis__networking.k8s.io__v1":         {"Ingress", "IngressClass", "NetworkPolicy"},
	"apis__rbac.authorization.k8s.io__v1": {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"},
	"apis__scheduling.k8s.io__v1":         {"PriorityClass"},
	"apis__storage.k8s.io__v1":            {"StorageClass"},
}

const referencePrefix = "#/components/schemas/"

type schema = map[string]any

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: generate KUBERNETES_SOURCE OUTPUT")
	}
	definitions := map[string]schema{}
	for document, kinds := range roots {
		collect(filepath.Join(os.Args[1], "api/openapi-spec/v3", document+"_openapi.json"), kinds, definitions)
	}
	types := goTypes()
	names := make([]string, 0, len(definitions))
	for name := range definitions {
		names = append(names, name)
	}
	slices.Sort(names)
	var output bytes.Buffer
	for _, name := range names {
		fields := map[string]string{}
		if typ, found := types[name]; found {
			describeFields(typ, "", "", fields)
		}
		fmt.Fprintf(&output, "%s\t%s\t%s\n", name, compact(definitions[name]), compact(fields))
	}
	if err := os.WriteFile(os.Args[2], output.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

func compact(value any) string {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		log.Fatal(err)
	}
	return strings.TrimSpace(buffer.String())
}

// collect adds the definitions of the kinds and everything that they refer to.
func collect(path string, kinds []string, into map[string]schema) {
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var document struct {
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(data, &document); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	schemas := document.Components.Schemas
	var open []string
	for name, definition := range schemas {
		kind := name[strings.LastIndex(name, ".")+1:]
		_, isKind := definition["x-kubernetes-group-version-kind"]
		if isKind && slices.Contains(kinds, kind) {
			open = append(open, name)
		}
	}
	if len(open) != len(kinds) {
		log.Fatalf("%s: wanted the kinds %v, found %v", path, kinds, open)
	}
	for len(open) > 0 {
		name := open[0]
		open = open[1:]
		if _, known := into[name]; known {
			continue
		}
		into[name] = schemas[name]
		references(schemas[name], &open)
	}
}

func references(value any, found *[]string) {
	switch value := value.(type) {
	case map[string]any:
		if reference, ok := value["$ref"].(string); ok {
			*found = append(*found, strings.TrimPrefix(reference, referencePrefix))
		}
		for _, child := range value {
			references(child, found)
		}
	case []any:
		for _, child := range value {
			references(child, found)
		}
	}
}

// goTypes finds the Go types behind the definitions.
func goTypes() map[string]reflect.Type {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistrationv1.AddToScheme, apiregistrationv1.AddToScheme, certificatesv1.AddToScheme, appsv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme, autoscalingv1.AddToScheme,
		autoscalingv2.AddToScheme, batchv1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme,
		discoveryv1.AddToScheme, eventsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		rbacv1.AddToScheme, schedulingv1.AddToScheme, storagev1.AddToScheme, apiextensionsv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			log.Fatal(err)
		}
	}
	found := map[string]reflect.Type{}
	for _, typ := range scheme.AllKnownTypes() {
		visit(typ, found)
	}
	return found
}

func visit(typ reflect.Type, found map[string]reflect.Type) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ.PkgPath() == "" {
		return
	}
	name := definitionName(typ)
	if _, known := found[name]; known {
		return
	}
	found[name] = typ
	for i := range typ.NumField() {
		visit(typ.Field(i).Type, found)
	}
}

// definitionName is `io.k8s.api.core.v1.Pod` for `k8s.io/api/core/v1.Pod`.
func definitionName(typ reflect.Type) string {
	path := strings.Replace(typ.PkgPath(), "k8s.io/", "io.k8s.", 1)
	return strings.ReplaceAll(path, "/", ".") + "." + typ.Name()
}

func describeFields(typ reflect.Type, prefix, inlined string, into map[string]string) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		tag := strings.Split(field.Tag.Get("json"), ",")
		number := ""
		if protobuf := strings.Split(field.Tag.Get("protobuf"), ","); len(protobuf) > 1 {
			number = prefix + protobuf[1]
		}
		isInlined := slices.Contains(tag[1:], "inline") || (field.Anonymous && tag[0] == "")
		if isInlined {
			if field.Type.Kind() == reflect.Struct {
				// A message of its own in protobuf.
				describeFields(field.Type, number+".", field.Name, into)
			}
			continue
		}
		if tag[0] == "" || tag[0] == "-" {
			continue
		}
		described := field.Type.String()
		kind := field.Type.Kind()
		_, marshalsItself := reflect.New(field.Type).Interface().(json.Marshaler)
		switch {
		case kind == reflect.Struct && !marshalsItself && !slices.Contains(tag[1:], "omitzero"):
			described += "!"
		case kind != reflect.Struct && kind != reflect.Pointer && slices.Contains(tag[1:], "omitempty"):
			described += "?"
		}
		if number != "" && !strings.HasPrefix(number, ".") {
			if inlined != "" {
				number += "@" + inlined
			}
			described = number + " " + described
		}
		into[tag[0]] = described
	}
}
