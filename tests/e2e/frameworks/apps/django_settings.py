"""Settings of the Django project."""

import warnings

# Django says by it that a FileResponse is read by plain iteration, which is what is looked at here.
warnings.filterwarnings("default", "StreamingHttpResponse must consume synchronous iterators")
# It leaves the request's body open when a view fails within its answer.
warnings.filterwarnings("ignore", "Unclosed file <tempfile.SpooledTemporaryFile", ResourceWarning)

ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["channels"]
LOGGING_CONFIG = None
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "tests.e2e.frameworks.apps.django_app"
SECRET_KEY = "of the tests"
USE_TZ = True
