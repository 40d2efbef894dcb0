import { SettingsPage } from './frame';
import { VariablesEditor } from './variables-editor';

export function VariableSettings() {
  return (
    <SettingsPage
      title="Variables"
      lead="What the shells and jobs of all your environments have. An environment may have its own of the same name, which then counts there."
    >
      <VariablesEditor />
    </SettingsPage>
  );
}
