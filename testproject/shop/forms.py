"""The forms of the shop."""

from django import forms

from shop.models import Associate


class PinField(forms.RegexField):
    """Four to eight digits, typed in secret."""

    widget = forms.PasswordInput(
        attrs={"inputmode": "numeric", "autocomplete": "off", "maxlength": 8, "size": 8}
    )
    default_error_messages = {"invalid": "A PIN has 4 to 8 digits."}

    def __init__(self, **kwargs):
        super().__init__(r"\A[0-9]{4,8}\Z", **kwargs)


class SwitchForm(forms.Form):
    """Who takes over the register, and the proof."""

    associate = forms.ModelChoiceField(
        Associate.objects.all(), empty_label=None, widget=forms.RadioSelect
    )
    pin = PinField(label="PIN")


class AssociateForm(forms.ModelForm):
    """An associate in the admin, where a PIN can be set but never read."""

    new_pin = PinField(
        label="New PIN", required=False, help_text="4 to 8 digits. Leave it empty to keep the PIN."
    )

    class Meta:
        """The visible fields."""

        model = Associate
        fields = ["name"]

    def clean(self):
        """Ask a new associate for a PIN."""
        data = super().clean()
        if not self.instance.pin and not data.get("new_pin"):
            self.add_error("new_pin", "A new associate needs a PIN.")
        return data

    def save(self, commit=True):
        """Hash the new PIN, if there is one."""
        if self.cleaned_data.get("new_pin"):
            self.instance.set_pin(self.cleaned_data["new_pin"])
        return super().save(commit)
