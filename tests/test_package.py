import hf_dvflnet


def test_the_package_has_a_version():
    assert hf_dvflnet.__version__
