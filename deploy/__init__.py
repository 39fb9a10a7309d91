"""Set-up of clusters: an AWS account, a Kubernetes job and its image, a probe of open ports."""
