package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	nodeName = "node-0"
	// A fifth of the time after which the node lifecycle controller gives a node up.
	leaseRenewal = 10 * time.Second
	// Pods of images with such a tag run and never become ready.
	unreadyTag = "-unready"
)

// runNodes is a node without machines: its pods run and are ready as soon as they are scheduled, and gone as soon as
// they are deleted. There is a kubelet's word about them and nothing else.
func runNodes(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// Many pods come at once when a test deploys many workloads.
	config.QPS, config.Burst = 400, 800
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	background := context.Background()
	if err := register(background, client); err != nil {
		return err
	}
	kubelet := &kubelet{client: client}
	factory := informers.NewSharedInformerFactory(client, 0)
	_, err = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(pod any) { kubelet.sync(background, pod.(*core.Pod)) },
		UpdateFunc: func(_, pod any) { kubelet.sync(background, pod.(*core.Pod)) },
	})
	if err != nil {
		return err
	}
	factory.Start(background.Done())
	for range time.Tick(leaseRenewal) {
		if err := renewLease(background, client); err != nil {
			fmt.Fprintln(os.Stderr, "renew the node's lease:", err)
		}
	}
	return nil
}

func register(ctx context.Context, client kubernetes.Interface) error {
	resources := core.ResourceList{
		core.ResourceCPU:    resource.MustParse("64"),
		core.ResourceMemory: resource.MustParse("256Gi"),
		// Above what one node of a real cluster takes: fleets are tested here.
		core.ResourcePods: resource.MustParse("10000"),
	}
	node := &core.Node{
		ObjectMeta: meta.ObjectMeta{Name: nodeName, Labels: map[string]string{core.LabelHostname: nodeName}},
		Status: core.NodeStatus{
			Capacity:    resources,
			Allocatable: resources,
			Conditions:  []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue, LastHeartbeatTime: meta.Now()}},
		},
	}
	if err := renewLease(ctx, client); err != nil {
		return err
	}
	_, err := client.CoreV1().Nodes().Create(ctx, node, meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func renewLease(ctx context.Context, client kubernetes.Interface) error {
	leases := client.CoordinationV1().Leases(core.NamespaceNodeLease)
	now, holder, seconds := meta.NowMicro(), nodeName, int32(40)
	spec := coordination.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now}
	lease, err := leases.Get(ctx, nodeName, meta.GetOptions{})
	if errors.IsNotFound(err) {
		lease = &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: nodeName}, Spec: spec}
		_, err = leases.Create(ctx, lease, meta.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec = spec
	_, err = leases.Update(ctx, lease, meta.UpdateOptions{})
	return err
}

type kubelet struct {
	client  kubernetes.Interface
	started int
}

// sync is called for one pod at a time.
func (k *kubelet) sync(ctx context.Context, pod *core.Pod) {
	var err error
	pods := k.client.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.Spec.NodeName != nodeName:
	case pod.DeletionTimestamp != nil:
		err = pods.Delete(ctx, pod.Name, *meta.NewDeleteOptions(0))
	case pod.Status.Phase == core.PodPending || pod.Status.Phase == "":
		pod = pod.DeepCopy()
		k.started++
		pod.Status = running(pod, k.started)
		_, err = pods.UpdateStatus(ctx, pod, meta.UpdateOptions{})
	}
	// After a conflict the newer pod is on its way here.
	if err != nil && !errors.IsNotFound(err) && !errors.IsConflict(err) {
		fmt.Fprintf(os.Stderr, "pod %s/%s: %v\n", pod.Namespace, pod.Name, err)
	}
}

func running(pod *core.Pod, number int) core.PodStatus {
	now := meta.Now()
	isReady := true
	status := pod.Status
	status.ContainerStatuses = nil
	for _, container := range pod.Spec.Containers {
		ready := !strings.HasSuffix(container.Image, unreadyTag)
		isReady = isReady && ready
		status.ContainerStatuses = append(status.ContainerStatuses, core.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: ready, Started: &ready,
			State: core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}},
		})
	}
	ready := core.ConditionFalse
	if isReady {
		ready = core.ConditionTrue
	}
	status.Conditions = []core.PodCondition{
		{Type: core.PodScheduled, Status: core.ConditionTrue, LastTransitionTime: now},
		{Type: core.PodInitialized, Status: core.ConditionTrue, LastTransitionTime: now},
		{Type: core.ContainersReady, Status: ready, LastTransitionTime: now},
		{Type: core.PodReady, Status: ready, LastTransitionTime: now},
	}
	address := fmt.Sprintf("10.244.%d.%d", number/250%250, number%250+1)
	status.Phase, status.PodIP, status.PodIPs, status.StartTime = core.PodRunning, address, []core.PodIP{{IP: address}}, &now
	return status
}
