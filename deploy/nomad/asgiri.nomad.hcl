# docs/operations/nomad.md has the sums. Nomad 1.7 or later.

job "shop" {
  type = "service"

  group "web" {
    count = 3

    # Three of these waits: out of the catalogue, and shutdown_delay until everybody has seen it; TERM, and workers.drain_timeout
    # for the requests that run; KILL, after kill_timeout. workers.drain_delay is 0: it would be the first wait again.
    shutdown_delay = "10s"

    network {
      port "http" {
        to = 8000
      }
      port "admin" {
        to = 9000
      }
    }

    update {
      max_parallel      = 1
      canary            = 1
      auto_promote      = true
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = "5s"
      healthy_deadline  = "2m"
      progress_deadline = "5m"
    }

    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "5s"
      healthy_deadline = "2m"
    }

    service {
      name     = "shop"
      port     = "http"
      provider = "nomad"

      check {
        name     = "ready"
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    service {
      name     = "shop-admin"
      port     = "admin"
      provider = "nomad"
      tags     = ["metrics"]

      # One that is stuck is started anew. What a worker does is the master's to see to: /livez does not ask for it.
      check {
        name     = "alive"
        type     = "http"
        path     = "/livez"
        interval = "10s"
        timeout  = "2s"

        check_restart {
          limit = 3
          grace = "90s"
        }
      }
    }

    task "asgiri" {
      driver = "docker"

      config {
        image           = "registry.example.org/shop:1.0"
        command         = "asgiri"
        args            = ["-c", "/local/asgiri.yaml"]
        ports           = ["http", "admin"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      user         = "10001:10001"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      # A changed variable is a changed file, and a HUP: a reload, which keeps what runs if the new config is not good.
      template {
        destination   = "local/asgiri.yaml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "10s"

        data = <<EOF
app: asgiri.demo:app
listen:
  - bind: 0.0.0.0:8000
proxy:
  trusted: [10.0.0.0/8]
  headers: x-forwarded
workers:
  count: {{ if nomadVarExists "nomad/jobs/shop" }}{{ with nomadVar "nomad/jobs/shop" }}{{ .workers }}{{ end }}{{ else }}2{{ end }}
  drain_delay: 0
  drain_timeout: 24s
  max_memory: 192MiB
limits:
  requests: 64
log:
  format: json
  access: {format: json}
admin:
  bind: 0.0.0.0:9000
control:
  socket: /alloc/control.sock
EOF
      }

      resources {
        cpu        = 1000
        memory     = 512
        memory_max = 768
      }
    }
  }
}
