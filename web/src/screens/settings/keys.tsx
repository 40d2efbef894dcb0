import { KeyEditor } from '@/app/keys/editor';
import { CommandKeys, Keys } from '@/app/keys/shown';
import { Section } from '@/app/page';
import { SettingsPage } from './frame';

export function KeySettings() {
  return (
    <SettingsPage
      title="Keys"
      lead={
        <>
          In a text field or a terminal only keys with <Keys keys="Mod+Shift" /> act. Keys that a terminal or
          a review has besides these are changed there, with <CommandKeys id="keys.show" />.
        </>
      }
    >
      <Section title="Shortcuts">
        <KeyEditor />
      </Section>
    </SettingsPage>
  );
}
