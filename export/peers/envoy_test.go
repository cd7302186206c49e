package peers

import (
	"fmt"
	"testing"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	// The kinds of the configuration's typed parts.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
)

// readEnvoy reads a configuration as Envoy does: no field that is not known,
// and every rule of every message, inside of typed parts too.
func readEnvoy(data []byte) error {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return err
	}
	var b bootstrap.Bootstrap
	if err := protojson.Unmarshal(asJSON, &b); err != nil {
		return err
	}
	if err := validate(&b); err != nil {
		return err
	}
	return agrees(&b)
}

// agrees holds what no message says alone, and Envoy refuses at its start: two
// chains that match alike, and a cluster that is not there.
func agrees(b *bootstrap.Bootstrap) error {
	clusters := map[string]bool{}
	for _, c := range b.GetStaticResources().GetClusters() {
		if clusters[c.GetName()] {
			return fmt.Errorf("two clusters %q", c.GetName())
		}
		clusters[c.GetName()] = true
	}
	for _, l := range b.GetStaticResources().GetListeners() {
		matches := map[string]bool{}
		for _, c := range l.GetFilterChains() {
			match, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.GetFilterChainMatch())
			if err != nil {
				return err
			}
			if matches[string(match)] {
				return fmt.Errorf("two chains match %v", c.GetFilterChainMatch())
			}
			matches[string(match)] = true
			for _, f := range c.GetFilters() {
				tcp := new(tcpproxy.TcpProxy)
				if f.GetTypedConfig().MessageIs(tcp) {
					if err := f.GetTypedConfig().UnmarshalTo(tcp); err != nil {
						return err
					}
					if !clusters[tcp.GetCluster()] {
						return fmt.Errorf("no cluster %q", tcp.GetCluster())
					}
				}
			}
		}
	}
	return nil
}

func validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return fmt.Errorf("%T: %w", m, err)
		}
	}
	if a, ok := m.(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			return err
		}
		return validate(inner)
	}
	var err error
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				if f.MapValue().Message() != nil {
					err = validate(v.Message().Interface())
				}
				return err == nil
			})
		case f.IsList():
			for i := range v.List().Len() {
				if err = validate(v.List().Get(i).Message().Interface()); err != nil {
					break
				}
			}
		default:
			err = validate(v.Message().Interface())
		}
		return err == nil
	})
	return err
}

func TestEnvoy(t *testing.T) {
	outputs(t, "envoy", "envoy.yaml", func(_ string, data []byte) error { return readEnvoy(data) })
	refuses(t, everyShape(t, "envoy", "envoy.yaml"), []spoil{
		{"listener_filters_timeout:", "listener_filter_timeout:"},
		{"port_value: 15001", "port_value: 99999"},
		{`stat_prefix: "tcp_22"`, `stat_prefix: ""`}, // inside of a typed part
		{"codec_type: ", "codec_types: "},
		{`codec_type: "HTTP1"`, `codec_type: "SPDY"`},
		{"tls_inspector.v3.TlsInspector", "tls_inspector.v3.TlsInspektor"},
		{"prefix_len: 16", "prefix_len: 129"},
		{`idle_timeout: "7200s"`, `idle_timeout: "2h"`},
		{"      transparent: true", "      transparent: true\n      transparent: false"},
		{`cluster: "addressed"`, `cluster: "elsewhere"`},
		{"destination_port: 9001", "destination_port: 9000"}, // which is a chain already
	}, readEnvoy)
}
