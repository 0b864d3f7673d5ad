"""The Helm chart: what Kubernetes would get from it, and nginx with the configuration that it makes."""

import json
import os
import re
import signal
import subprocess
import tarfile

import jsonschema
import pytest

from support.client import Client, chat_body
from support.errors import assert_error
from support.llmctl import environment
from support.paths import CONF, MODULE, ROOT, program
from support.poll import until
from support.ports import free_port
from support.process import accepts
from support.reporter import ENDPOINTS, REPORTER, Pages
from support.users import user

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
pytest.importorskip("helm_python", reason="helm-python-sdk has no build for this machine")

from support.helm import CHART, Refused, check, lint, package, render  # noqa: E402  needs what importorskip has looked for

LEAST = {"image": {"repository": "registry.example:5000/llm-gateway"}, "clients": {"tokensSecret": "llm-tokens"},
         "engines": {"redis": "redis://redis.ai.svc.cluster.local:6379/0"}}
MOST = {
    **LEAST, "replicas": 3, "readiness": "liveness", "rollOut": False, "dashboard": "admin", "imagePullSecrets": [{"name": "registry"}],
    "engines": {"redisSecret": "llm-redis", "keysSecret": "llm-keys", "https": True, "static": [
        {"url": "https://vllm-0:8000", "models": ["llama-3.1-8b", "org/other"], "maxRunning": 64, "id": "vllm-0", "org": "us", "key": "vllm.key"},
        {"url": "http://vllm-1:8000", "models": ["llama-3.1-8b"], "backup": True}]},
    "nginx": {"main": "env SSL_CERT_FILE;", "http": "llm_min_throughput 20;\nllm_routing prefix;\n", "location": "llm_queue_timeout 30s;",
              "server": "add_header X-Served-By gateway always;", "workers": 2, "zone": "8m", "connections": 512, "resolver": "127.0.0.1:53 valid=10s"},
    "metrics": {"allow": ["10.244.0.0/16"], "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
                "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicy": {"enabled": True, "clients": [{"namespaceSelector": {}}], "metrics": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]},
    "podAnnotations": {"a": "b"}, "podLabels": {"team": "ai"}, "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}],
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.pem"}], "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
}
DATABASE = {**LEAST, "clients": {"databaseSecret": "llm-clients"}, "podSecurityContext": {"runAsUser": None, "fsGroup": None}}
OPEN = {**LEAST, "clients": {"open": True}, "nginx": {"resolver": ""}, "service": {"type": "LoadBalancer", "port": 8080}}


def merged(values, **changes):
    """A copy of `values` with further ones at paths such as nginx__zone."""
    made = json.loads(json.dumps(values))
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = made
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = value
    return made


def the(manifests, kind, name="gw-llm-dispatch"):
    return manifests[kind, name]


def pod(manifests):
    return the(manifests, "Deployment")["spec"]["template"]


def nginx_conf(manifests, name="gw-llm-dispatch"):
    return the(manifests, "ConfigMap", name)["data"]["nginx.conf"]


# ---------------------------------------------------------------------------------------------- the chart's files


def test_the_defaults_are_explained_and_what_they_are_checked_by():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)

    def same(values, schema, where):
        properties = schema.get("properties")
        if properties is not None:
            assert schema["additionalProperties"] is False, f"{where}: a misspelt name would do nothing"
            assert set(values) == set(properties) - {"global"}, where
            for name, value in values.items():
                same(value, properties[name], f"{where}.{name}")

    same(values, schema, "values")
    example = re.search(r"static: \[\]\n((?:  #.*\n)+)", (CHART / "values.yaml").read_text())[1]
    engine, = yaml.safe_load(re.sub(r"^  #", "", example, flags=re.MULTILINE))
    item = schema["properties"]["engines"]["properties"]["static"]["items"]
    assert set(engine) == set(item["properties"])


def test_the_chart_agrees_with_the_rest():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r"project\(llm-dispatch VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert chart["version"] == chart["appVersion"] == version
    log_format = r"log_format llm_json escape=json\s*('[^;]*');"

    def words(text):
        return re.search(log_format, text)[1].split()

    assert words((CHART / "templates" / "configmap.yaml").read_text()) == words((CONF / "nginx.conf").read_text())
    # the image: the user, the ports and the directories that the pod gives it
    dockerfile = (ROOT / "packaging" / "Dockerfile").read_text()
    context = pod(render(LEAST))["spec"]["securityContext"]
    assert set(re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)) == {(str(context["runAsUser"]), str(context["runAsGroup"]))}
    gateway = dockerfile[dockerfile.index("AS gateway"):]
    assert "STOPSIGNAL SIGQUIT" in gateway and "EXPOSE 8080" in gateway
    assert re.search(r"chown \d+:\d+ (.*)", gateway)[1].split() == ["/run", "/var/lib/nginx"]


def test_a_package_holds_the_alerts(tmp_path):
    with tarfile.open(package(tmp_path)) as archive:
        rules = archive.extractfile("llm-dispatch/files/llm-rules.yml").read()
        assert all(entry.isfile() for entry in archive)
    assert rules == (CONF / "prometheus" / "llm-rules.yml").read_bytes()


# ---------------------------------------------------------------------------------------------- what Kubernetes gets


@pytest.mark.parametrize("values", [LEAST, MOST, DATABASE, OPEN], ids=["least", "most", "database", "open"])
def test_the_manifests_fit_together(values):
    assert lint(values) == []
    manifests = render(values)
    template = pod(manifests)
    labels, spec = template["metadata"]["labels"], template["spec"]
    container, = spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}

    def selects(selector):
        assert selector and selector.items() <= labels.items()

    selects(the(manifests, "Deployment")["spec"]["selector"]["matchLabels"])
    for (kind, _), manifest in manifests.items():
        if kind == "Service":
            selects(manifest["spec"]["selector"])
            assert all(port["targetPort"] in ports for port in manifest["spec"]["ports"])
        elif kind == "PodDisruptionBudget":
            selects(manifest["spec"]["selector"]["matchLabels"])
        elif kind == "NetworkPolicy":
            selects(manifest["spec"]["podSelector"]["matchLabels"])
    assert the(manifests, "Service")["spec"]["ports"][0]["targetPort"] == "http", "clients do not reach the dashboard's port"
    listens = [int(port) for port in re.findall(r"listen (\d+)", nginx_conf(manifests))]
    assert listens == [ports["http"], ports["metrics"]]

    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in spec["volumes"]}
    assert all("subPath" not in mount for mount in mounts.values()), "such a file is never renewed"
    used = {os.path.dirname(path) for path in re.findall(r"(?:file:|include )(/\S+)", nginx_conf(manifests))}
    assert used == {path for path in mounts if path.startswith("/etc/llm-dispatch/")}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly") and path != "/ca"}
    assert writable == {"/run", "/var/lib/nginx"}

    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["automountServiceAccountToken"] is False
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/liveness"
    assert container["readinessProbe"]["httpGet"]["path"] == f"/health/{values.get('readiness', 'readiness')}"
    assert ("PodDisruptionBudget", "gw-llm-dispatch") in manifests or values.get("replicas", 1) == 1


def test_a_changed_configuration_rolls_the_pods_unless_told_otherwise():
    def annotations(**changes):
        return pod(render(merged(LEAST, **changes)))["metadata"].get("annotations", {})

    assert annotations() == annotations(resources={"limits": {"memory": "2Gi"}})
    assert annotations() != annotations(nginx__http="llm_min_throughput 20;")
    assert annotations(rollOut=False) == {}


def test_the_environment_of_prometheus_operator(tmp_path):
    manifests = render(MOST)
    monitor, service = the(manifests, "ServiceMonitor"), the(manifests, "Service", "gw-llm-dispatch-metrics")
    chosen = [name for (kind, name), manifest in manifests.items() if kind == "Service"
              and monitor["spec"]["selector"]["matchLabels"].items() <= manifest["metadata"]["labels"].items()]
    assert chosen == [service["metadata"]["name"]]
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]
    rules = the(manifests, "PrometheusRule")
    assert rules["metadata"]["labels"]["release"] == monitor["metadata"]["labels"]["release"] == "prometheus"
    assert rules["spec"] == yaml.safe_load((CONF / "prometheus" / "llm-rules.yml").read_text())
    # an alert looks at up{job="llm"}
    assert f'job="{service["metadata"]["labels"][monitor["spec"]["jobLabel"]]}"' in json.dumps(rules["spec"]).replace("\\", "")


def test_names_stay_apart_and_short():
    assert ("Deployment", "llm-dispatch") in render(LEAST, release="llm-dispatch")
    name, = {name for kind, name in render(LEAST, release="r" * 53) if kind}
    assert len(name + "-metrics") <= 63


@pytest.mark.parametrize("replicas,static,told", [(1, True, False), (2, False, False), (2, True, True)])
def test_notes_warn_of_what_replicas_do_not_share(replicas, static, told):
    engines = [{"url": "http://vllm:8000", "models": ["m"]}] if static else []
    notes = render(merged(LEAST, replicas=replicas, engines__static=engines))["", "NOTES.txt"]
    assert ("know nothing of each other's requests" in notes) == told


@pytest.mark.parametrize("changes,said", [
    ({"image": {}}, "image.repository: name the image"),
    ({"clients": {}}, "clients: give exactly one of"),
    ({"clients__open": True}, "clients: give exactly one of"),
    ({"clients__databaseSecret": "other"}, "clients: give exactly one of"),
    ({"clients__tokensSecret": "Not a name"}, "at '/clients/tokensSecret'"),
    ({"engines": {}}, "engines: give redis, redisSecret or static"),
    ({"engines__redisSecret": "other"}, "engines: give redis or redisSecret, not both"),
    ({"engines__redis": "redis:6379"}, "at '/engines/redis'"),
    ({"engines__static": [{"url": "http://vllm:8000"}]}, "missing property 'models'"),
    ({"engines__static": [{"url": "vllm:8000", "models": ["m"]}]}, "at '/engines/static/0/url'"),
    ({"engines__static": [{"url": "http://vllm:8000", "models": ["m; return 200"]}]}, "at '/engines/static/0/models/0'"),
    ({"engines__static": [{"url": "http://vllm:8000", "models": ["m"], "key": "k"}]}, "engines.keysSecret does not say where"),
    ({"engines__static": [{"url": "https://vllm:8000", "models": ["m"]}]}, "needs engines.https: true"),
    ({"replica": 2}, "additional properties 'replica' not allowed"),
    ({"nginx__zone": 64}, "at '/nginx/zone': got number, want string"),
    ({"nginx__zone": "64 MB"}, "at '/nginx/zone'"),
    ({"nginx__workers": "auto"}, "at '/nginx/workers': got string, want integer"),
    ({"readiness": "yes"}, "at '/readiness': value must be one of"),
    ({"metrics__serviceMonitor__enabled": True}, "metrics.allow: say from which addresses"),
    ({"metrics": {"allow": ["10.0.0.0/8"], "serviceMonitor": {"enabled": True}}, "networkPolicy": {"enabled": True}}, "networkPolicy.metrics"),
    ({"metrics__allow": ["everybody"]}, "at '/metrics/allow/0'"),
])
def test_wrong_values_are_refused(changes, said):
    with pytest.raises(Refused) as refused:
        render(merged(LEAST, **changes))
    assert said in str(refused.value)


def test_a_password_in_values_is_not_repeated():
    with pytest.raises(Refused) as refused:
        render(merged(LEAST, engines__redis="redis://:hunter2@redis:6379/0"))
    assert "engines.redisSecret" in str(refused.value) and "hunter2" not in str(refused.value)


# ---------------------------------------------------------------------------------------------- nginx with its configuration


class Mounted:
    """A Secret as the kubelet mounts it: links to a directory that is exchanged as a whole."""

    def __init__(self, directory, **files):
        self._directory = directory
        self._version = 0
        directory.mkdir(parents=True)
        self.write(**files)

    def write(self, **files):
        self._version += 1
        content = self._directory / f"..{self._version}"
        content.mkdir()
        for name, text in files.items():
            name = name.replace("__", ".")
            (content / name).write_text(text)
            link = self._directory / name
            link.is_symlink() or link.symlink_to(f"..data/{name}")
        fresh = self._directory / "..data_tmp"
        fresh.symlink_to(content.name)
        fresh.rename(self._directory / "..data")


@pytest.fixture
def served(nginx, tmp_path):
    """Factory: a gateway with the chart's nginx.conf, but for paths and ports, and a client of its port 8081. Not started yet."""

    def make(values):
        gate = nginx(start=False, workers=2)
        gate.metered = False  # its metrics are at the other port
        inner = Client(free_port())
        text = nginx_conf(render(merged(values, nginx__workers=2, nginx__connections=512, nginx__zone="8m")))
        temporary = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        for there, here in {"modules/ngx_http_llm_dispatch_module.so": f'"{MODULE}"', "worker_rlimit_nofile 65536;": "daemon off;" + gate.blocks["main"],
                            "pid /run/": f"pid {gate.directory}/", "error_log stderr": f"error_log {gate.directory}/error.log",
                            "/dev/stdout": f"{gate.directory}/access.log", "http {": "http { " + temporary,
                            "listen 8080 ": f"listen 127.0.0.1:{gate.port} ", "listen 8081;": f"listen 127.0.0.1:{inner.port};"}.items():
            assert there in text, there
            text = text.replace(there, str(here))
        text = text.replace("/etc/llm-dispatch", str(tmp_path / "secrets"))
        gate.write_conf = lambda: gate.conf.write_text(text)
        return gate, inner

    return make


def tokens(*names):
    return json.dumps({"users": [user(name) for name in names]})


def test_metrics_and_dashboard_are_for_the_pod_itself():
    def allowed(values):
        _, _, inner = nginx_conf(render(values)).partition("listen 8081;")
        assert inner.count("deny all;") == inner.count("location ") == 2
        return re.findall(r"allow (\S+);", inner)

    assert allowed(LEAST) == ["127.0.0.1"] * 2
    assert allowed(MOST) == ["127.0.0.1", "10.244.0.0/16", "127.0.0.1"]


def test_every_value_makes_a_configuration_that_nginx_takes(served, tmp_path):
    Mounted(tmp_path / "secrets" / "clients", llm_priority_db__conf='llm_priority_db "postgresql://llm:secret@127.0.0.1:1/llm" refresh=10s;\n',
            **{"llm-tokens__json": tokens("alice")})
    Mounted(tmp_path / "secrets" / "redis", llm_redis__conf="llm_redis redis://:secret@127.0.0.1:1/0;\n")
    Mounted(tmp_path / "secrets" / "engine-keys", vllm__key="sk-engine\n")
    here = merged(MOST)
    for engine in here["engines"]["static"]:
        engine["url"] = re.sub(r"vllm-\d", "127.0.0.1", engine["url"])
    here["engines"]["static"][1]["url"] = "http://127.0.0.1:8001"
    for values in (LEAST, here, DATABASE, OPEN):
        status, output = served(merged(values, nginx__resolver="" if values is OPEN else "127.0.0.1:53",
                                       **({} if values is here else {"engines__redis": "redis://127.0.0.1:1/0"})))[0].test_conf()
        assert status == 0, output


def test_a_gateway_of_the_chart_serves_and_drains(served, fake_engine, tmp_path):
    secret = Mounted(tmp_path / "secrets" / "clients", **{"llm-tokens__json": tokens("alice", "bob")})
    engine = fake_engine()
    gate, inner = served(merged(LEAST, nginx__resolver="", engines={"static": [{"url": engine.url, "models": ["m"], "maxRunning": 1}]}))
    gate.start().wait_ready()
    assert gate.client.get("/health/liveness").status == 200
    assert gate.client.ask(token="alice").status == 200
    assert_error(gate.client.ask(token="stranger"), 401, "invalid_api_key")
    log = gate.directory / "access.log"
    lines = until(lambda: len(lines := log.read_text().splitlines()) >= 2 and lines, "both requests are logged")
    assert sorted(json.loads(line)["client"] for line in lines) == ["", "alice"]
    # the port of clients has neither metrics nor dashboard
    assert [gate.client.get(path).status for path in ("/metrics", "/llm/")] == [404] * 2
    assert [inner.get(path).status for path in ("/metrics", "/llm/", "/llm/status.json")] == [200] * 3

    # a changed Secret needs no reload
    secret.write(**{"llm-tokens__json": tokens("bob", "carol")})
    until(lambda: gate.client.ask(token="alice").status == 401, "a token that was taken out is refused")
    assert gate.client.ask(token="carol").status == 200

    # what the kubelet sends at the end: what runs and waits comes to its end first
    pending = [engine.occupy(gate.client, chat_body(content="runs", stream=True), token="bob")]
    pending.append(gate.client.send(chat_body(content="waits", stream=True), token="bob"))
    until(lambda: 'llm_queue_depth{model="m"} 1' in inner.get("/metrics").body.decode(), lambda: inner.get("/metrics").body.decode())
    gate.send_signal(signal.SIGQUIT)
    until(lambda: not accepts(gate.port), "no new connection is taken")
    engine.open_gate()
    replies = [one.reply() for one in pending]
    assert [(reply.status, reply.complete, reply.text()) for reply in replies] == [(200, True, "hello from the engine")] * 2
    until(lambda: not gate._process.alive(), gate.error_log)
    assert gate._process.wait() == 0
    gate.lose()
    gate.check_logs()


def test_alerts_pass_promtool(tmp_path):
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(the(render(MOST), "PrometheusRule")["spec"]))
    done = subprocess.run([program("promtool"), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reporter_of_the_page(tmp_path):
    """The container that docs/operations.md has for pods of vLLM, in such a pod, and what it reports there."""
    block, = re.findall(r"^```yaml\n(- name: reporter\n.*?)^```$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE | re.DOTALL)
    container, = yaml.safe_load(block)
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "vllm-0"}, "spec": {"containers": [container]}})
    here = {"POD_IP": "10.244.1.7", "POD_NAME": "vllm-0", "REDIS_URL": "redis://127.0.0.1:1"}
    assert set(here) == {one["name"] for one in container["env"]}
    pages = Pages({"/health": "", "/metrics": (ENDPOINTS / "vllm_metrics.txt").read_text(), "/v1/models": (ENDPOINTS / "vllm_models.json").read_text()})
    name, *words = [re.sub(r"\$\((\w+)\)", lambda found: here[found[1]], word) for word in container["command"]]
    assert name == REPORTER.name
    words[words.index("--url") + 1] = pages.url
    done = subprocess.run([REPORTER, *words, "--once"], capture_output=True, text=True, timeout=60, check=False, env=environment())
    pages.stop()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["id"], report["url"], report["max_running"], report["state"]) == ("vllm-0", "http://10.244.1.7:8000", 256, "ready")


def test_the_values_of_the_page():
    page = (ROOT / "docs" / "operations.md").read_text()
    block, = re.findall(r"^```yaml\n(image: .*?)^```$", page, re.MULTILINE | re.DOTALL)
    release = re.search(r"^helm install (\S+) conf/helm/llm-dispatch -f values.yaml$", page, re.MULTILINE)[1]
    manifests = render(yaml.safe_load(block), release)
    name, = set(re.findall(r"deployment/([\w-]+)", page))
    assert ("Deployment", name) in manifests
    assert "llm_min_throughput 20;" in nginx_conf(manifests, name)
